"""Log-probabilities are shared within a step: equal numbers, fewer computations, nothing kept afterwards."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusing import bound
from logitkit.processors.engine.log_probabilities import log_probabilities, mark_normalised, shared_log_probabilities


class Normalisations(TorchDispatchMode):
    """Counts log_softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "log_softmax" in str(func)
        return func(*args, **(kwargs or {}))


def test_by_hand() -> None:
    """Two equal scores are ln 1/2 each; a second call returns the same object until the scores are written to."""
    scores = torch.zeros(1, 2)
    with shared_log_probabilities():
        logp = log_probabilities(scores)
        assert logp.exp().tolist() == [[0.5, 0.5]] and log_probabilities(scores) is logp
        assert log_probabilities(logp) is not logp and log_probabilities(mark_normalised(logp)) is logp
        scores[0, 0] = -torch.inf
        assert log_probabilities(scores).exp().tolist() == [[0.0, 1.0]]
        logp[0, 0] = 3.0
        assert log_probabilities(logp) is not logp


def test_half_precision_scores_give_fp32() -> None:
    """Log-probabilities of bfloat16 scores are fp32."""
    with shared_log_probabilities():
        assert log_probabilities(torch.zeros(1, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_nothing_is_kept_after_a_step_or_shared_outside() -> None:
    """The step frees its tensors, and outside a step every call computes anew."""
    scores = torch.zeros(1, 4)
    with shared_log_probabilities():
        kept = weakref.ref(log_probabilities(scores))
        assert kept() is not None
    gc.collect()
    assert kept() is None
    assert log_probabilities(scores) is not log_probabilities(scores)


@pytest.mark.parametrize("chain", ["cfg(2.0) | cfg(1.5, negative='no')", "cfg(2.0) | uscd(gate=1.0, form='ratio')"])
def test_a_chain_computes_fewer_and_answers_the_same(chain: str) -> None:
    """A chain equals its processors one after another up to rounding, with one log_softmax fewer."""
    call = bound(chain)
    ids = call.prompts.ids
    scores = torch.randn(len(ids), call.model.config.vocab_size, generator=torch.Generator().manual_seed(0))
    call.composite(ids, scores)  # the readers have read
    with Normalisations() as ours:
        got = call.composite(ids, scores)
    want = scores
    with Normalisations() as alone:
        for _, part in call.composite.parts:
            want = part(ids, want)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert ours.count == alone.count - 1
