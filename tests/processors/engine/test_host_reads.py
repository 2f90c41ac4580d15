"""Reads of the device by the host in each step, counted on the CPU, where the code makes the same reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import logitkit
from fusing import bound
from logitkit.bench.speed.syncs import SyncCount
from logitkit.registry.laws import tiny_model, tiny_tokenizer

READS = {
    ("", "lazy"): 1,  # the check that every row keeps a token
    ("temperature(0.7) | top_p(0.9)", "lazy"): 1,
    ("top_n_sigma(1.0) | p_less() | tail_free() | dynamic_temperature()", "lazy"): 1,
    ("xtc(0.02, 0.5)", "lazy"): 1,  # which prompt each row continues is read together with the first
    ("dry() | frequency_penalty(0.5)", "lazy"): 1,  # the check that the rows grew is read together with the first
    ("cfg(2.0)", "fused"): 1,  # the check that prefetched logits belong to the rows is read together with the first
    ("uscd(gate=1.0, lame='x')", "fused"): 1,
    ("uscd(gate=1.0)", "fused"): 1,
    ("cfg(2.0) | uscd(gate=0.5)", "fused"): 1,
    ("cfg(2.0)", "lazy"): 1,  # the check that the rows grew by one token is read together with the first
    ("uscd(gate=1.0, lame='x')", "lazy"): 2,  # and whether the gate fires
}


def reads(make: Callable[[], Any], streams: str) -> float:
    """Return the host reads a step beyond those of transformers, over the steps from the fifth to the fourteenth."""
    counts = []
    for tokens in (14, 4):
        settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": True}
        chained, plain = make(), make()
        with SyncCount() as ours:
            chained.generate(streams=streams, **settings)
        with SyncCount() as theirs:
            plain.model.generate(**plain.inputs, **settings)
        counts.append(ours.total - theirs.total)
    return (counts[0] - counts[1]) / 10


@pytest.mark.parametrize(("chain", "streams"), READS)
def test_reads_a_step(chain: str, streams: str) -> None:
    """The number of host reads beyond those of transformers is as listed."""
    assert reads(lambda: bound(chain), streams) == READS[chain, streams]


def test_two_readers_share_one_comparison() -> None:
    """Two readers of the same rows compare the rows once."""
    chain, small = logitkit.chain("dexperts('b', 'c')"), {"b": tiny_model(1), "c": tiny_model(2)}
    assert reads(lambda: chain.bind(tiny_model(), tiny_tokenizer(), ["one prompt"], **small), "lazy") == 1


@pytest.mark.parametrize(
    "read",
    [
        lambda x: bool(x.any()),
        lambda x: x[0].item(),
        lambda x: float(x.sum()),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: torch.equal(x, x),
        lambda x: torch.unique(x),
    ],
)
def test_every_kind_of_read_is_counted(read: Any) -> None:
    """Each operation that reads the device counts once."""
    with SyncCount() as syncs:
        read(torch.arange(4.0))
    assert syncs.total == 1


def test_operations_on_the_device_are_not_counted() -> None:
    """Arithmetic, masked fills, indexing by a tensor and shapes read nothing."""
    x = torch.arange(4.0)
    with SyncCount() as syncs:
        torch.where(x > 1, x, 0).masked_fill(x > 2, 1).log_softmax(-1).amax(-1)
        x[torch.tensor([0, 1])].shape[0]
    assert syncs.total == 0
