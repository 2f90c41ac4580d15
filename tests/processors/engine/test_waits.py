"""How often the host waits for the device in a step of greedy decoding, counted on a device that is pretended."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from pretend_device import DEVICE, OnDevice, Pretended, model_on_device

import logitkit
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws import examples, tiny_model
from logitkit.registry.laws.subjects import prompts

# Processors that make the host wait more than once a step, and why. Nothing else may.
MORE = {
    "adaptive_p": "reads its state, and copies it to the device",
    "ban_phrases": "follows rows on the host",
    "byte_ensemble": "the bytes of the rows are chosen and spelled on the host",
    "canonical": "follows rows on the host",
    "core": "rows are spelled in the other tokenizer on the host",
    "deepen": "rows are spelled in the other tokenizer on the host",
    "dry": "copies ids to the device",
    "ensemble": "rows are spelled in the other tokenizer on the host",
    "eta_cutoff": "transformers computes its threshold from a number that it reads",
    "grammar": "follows rows on the host",
    "mirostat": "reads its state, and copies it to the device",
    "mti": "the number of rows of its second forward depends on the scores",
    "suppress_tokens": "transformers copies the ids to the device",
    "thinking_budget": "follows rows on the host",
    "top_h": "transformers writes by a mask and reads a number",
    "xtc": "copies a number to the device",
}
ENDS = {"choices"}  # its rows must end, so they have no steps to count
# The most kernels that a step may launch beyond plain decoding, without the forwards of models; two are spare.
LAUNCHES = {
    "cad": 20,
    "cascade": 48,
    "cfg": 20,
    "contrastive": 22,
    "crossover": 53,
    "dexperts": 23,
    "ngram_context": 83,
    "ngram_style": 64,
    "uscd": 28,
}
# The processors whose tokens on the pretended device are compared with those of the CPU.
COMPARED = ("cascade", "crossover", "ngram_context", "ngram_style", "uscd")


def counted(name: str, streams: Any = "lazy", **mode: Any) -> tuple[Counter[str], Counter[str], torch.Tensor]:
    """Return waits and launches of steps 6 to 9 beyond those of plain decoding, and the tokens."""
    device, make = Pretended(), examples.foreign_model
    waits, launches = Counter[str](), Counter[str]()
    with pytest.MonkeyPatch.context() as patch, device, torch.no_grad():
        patch.setattr(examples, "foreign_model", lambda: model_on_device(make(), device))
        example = examples.example_of(
            default_registry().describe(name),
            model=model_on_device(tiny_model(), device),
            another=lambda number: model_on_device(tiny_model(number), device),
        )
        for tokens, sign in ((9, 1), (5, -1)):
            settings = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": None, **mode}
            call = example.bind(prompts(tokenizer=example.tokenizer))
            runs = [lambda c=call, s=settings: c.generate(streams=streams, **s)]
            runs += [lambda c=call, s=settings: c.model.generate(**c.inputs, **s)]
            outputs = []
            for run, way in zip(runs, (sign, -sign), strict=True):
                device.waits.clear()
                device.launches.clear()
                outputs.append(run())
                for total, part in ((waits, device.waits), (launches, device.launches)):
                    for key, count in part.items():
                        total[key] += way * count
            if sign > 0:
                ids = outputs[0].inner
    return waits, launches, ids


@pytest.mark.parametrize("name", [name for name in logitkit.names() if name not in MORE | dict.fromkeys(ENDS)])
def test_at_most_one_wait_a_step(name: str) -> None:
    """A chain of one processor makes the host wait once a step beyond plain decoding: for its check of the scores.

    Launches are bounded too: the host launches kernels more slowly than an accelerator carries out small ones.
    """
    waits, launches, ids = counted(name)
    assert sum(waits.values()) <= 4, {key: count / 4 for key, count in waits.items() if count}
    per_step = {key: count / 4 for key, count in launches.items() if count}
    assert sum(per_step.values()) <= LAUNCHES.get(name, math.inf), per_step
    if name in COMPARED:
        example = examples.example_of(default_registry().describe(name))
        call = example.bind(prompts(tokenizer=example.tokenizer))
        assert torch.equal(ids, call.generate(streams="lazy", max_new_tokens=9, do_sample=False, eos_token_id=None))


@pytest.mark.parametrize(
    ("read", "waits"),
    [
        (lambda x: bool(x.any()), 1),
        (lambda x: float(x.sum()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.to("cpu"), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 1], 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: torch.unique(x), 1),
        (lambda x: torch.repeat_interleave(x.long()), 1),
        (lambda x: torch.tensor([1.0], device=x.device), 1),
        (lambda x: torch.arange(3).to(x.device), 1),
        (lambda x: torch.where(x > 1, x, 0).masked_fill(x > 2, 1).log_softmax(-1).amax(-1), 0),
        (lambda x: x[x.new_zeros(2).long()] * 2 + torch.arange(2, device=x.device), 0),
        (lambda x: x.to(x.device).float(), 0),
    ],
)
def test_every_kind_of_wait_is_counted(read: Any, waits: int) -> None:
    """Each operation that makes a host wait counts once; others do not."""
    x = OnDevice(torch.arange(4.0))
    with Pretended() as device:
        read(x)
    assert sum(device.waits.values()) == waits and x.device == DEVICE
