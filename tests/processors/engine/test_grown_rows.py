"""Rows that grew are found without a wait, and a late check still names the step at fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from fusing import bound
from logitkit.errors import ScoresError
from logitkit.processors.engine import read_prompts
from logitkit.processors.engine.grown_rows import GrownRows
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a prompt"]


def test_by_hand() -> None:
    """Outside a step one token may be new; inside steps of one line several; other rows and shapes give 0."""
    prompts = read_prompts(tiny_tokenizer(), tiny_model(), "ab")
    dropped: list[str] = []
    rows = GrownRows(prompts, lambda: dropped.append("all"))
    first = prompts.ids
    second, third = (torch.cat([first, torch.tensor([tail])], dim=1) for tail in ([7], [7, 8]))
    assert rows.new_tokens(first) == 0
    rows.note(first)
    assert [rows.new_tokens(x) for x in (first, second, third, second.repeat(2, 1))] == [0, 1, 0, 0]
    checks, grew = prompts.deferred_checks, torch.tensor(True)
    with checks.collected(first):
        rows.note(first)
    with checks.collected(second, grew) as step:
        step.read()
    with checks.collected(third, grew):
        assert rows.new_tokens(third) == 2
    with checks.collected(third, torch.tensor(False)) as step:
        assert rows.new_tokens(third) == 2  # assumed
        step.read()
        assert step.undo() and dropped == ["all"]
    assert rows.new_tokens(second) == 0


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_a_gate_that_opens_now_and_then(mode: dict[str, Any]) -> None:
    """A reader that was left out for some steps feeds their tokens at once; the tokens are those of fusing."""
    chain = logitkit.chain("uscd(gate=0.13, lame='x')")
    settings = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, **mode}
    outputs = []
    for streams in ("lazy", "fused"):
        if streams == "fused" and "num_beams" in mode:
            break
        call = chain.bind(tiny_model(), tiny_tokenizer(), PROMPTS)
        torch.manual_seed(0)
        outputs.append(call.generate(streams=streams, **settings))
        if streams == "lazy":
            fired, reader = call.trace.fired["uscd"], call.trace.readers["lame prompt"]
            assert 0 < fired < 1 and reader.forwards < 24
    assert len(outputs) == 1 or torch.equal(*outputs)


def spoiled(call: Any, step: int) -> None:
    """Let the second stream of a call return NaN from a step on."""
    reader, calls = call.composite.parts[0][1].lame, [0]
    read = type(reader).__call__

    class Spoiled(type(reader)):  # type: ignore[misc]
        def __call__(self, rows: Tensor) -> Tensor:
            calls[0] += 1
            return read(self, rows) * (torch.nan if calls[0] > step else 1)

    reader.__class__ = Spoiled


@pytest.mark.parametrize("step", [0, 2, 5])
@pytest.mark.parametrize("sampling", [False, True])
def test_rows_without_a_token_are_refused(step: int, sampling: bool) -> None:
    """NaN of a gated stream is an error that names the processor, at the last step too."""
    call = bound("uscd(gate=1.0, head=0.0, lame='x')")
    spoiled(call, step)
    with pytest.raises(ScoresError, match="NaN in row 0 from uscd"):
        call.generate(streams="lazy", max_new_tokens=6, do_sample=sampling, eos_token_id=None)
    call = bound("uscd(gate=1.0, lame='x')")
    call.generate(streams="lazy", max_new_tokens=6, do_sample=sampling, eos_token_id=None)
