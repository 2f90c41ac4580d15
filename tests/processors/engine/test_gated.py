"""Gated processors: which rows they ask, what shut rows keep, and what the streams of a reader keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.contrast import CFG
from logitkit.processors.engine import Gate, Gated, Trace
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.fixed_streams import logits_with_ties

SURE, UNSURE = torch.tensor([0.9, 0.1, 0.0]).log(), torch.tensor([0.5, 0.5, 0.0]).log()
SCORES = torch.stack([UNSURE, SURE, UNSURE])
ROWS = torch.tensor([[1, 2], [3, 4], [5, 6]])


class Spy:
    """A processor that keeps what it is asked, adds 1 to the first token, and declares a stream."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, Tensor]] = []
        self.streams = (lambda rows: torch.zeros(len(rows), 3),)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.asked.append((input_ids, scores))
        return scores + torch.tensor([1.0, 0.0, 0.0])


def test_worked_example() -> None:
    """Rows of .69, .33 and .69 nats, gate above .5: the processor sees the first and third row alone."""
    spy = Spy()
    got = Gated(spy, gate=Gate(measure="entropy", above=0.5), name="spy")(ROWS, SCORES)
    ((rows, scores),) = spy.asked
    assert rows.tolist() == [[1, 2], [5, 6]] and torch.equal(scores, SCORES[[0, 2]])
    assert torch.equal(got[1], SURE) and got[:, 0].tolist() == pytest.approx([0.3069, -0.1054, 0.3069], abs=1e-4)


def test_no_open_row_asks_nothing_and_all_open_rows_are_passed_through() -> None:
    """Shut: the scores themselves. Open: the processor gets and returns the tensors themselves."""
    spy = Spy()
    assert Gated(spy, gate=Gate(measure="max", above=1.0), name="spy")(ROWS, SCORES) is SCORES and not spy.asked
    got = Gated(spy, gate=Gate(measure="max", below=1.0), name="spy")(ROWS, SCORES)
    assert spy.asked[0][0] is ROWS and spy.asked[0][1] is SCORES
    assert torch.equal(got, SCORES + torch.tensor([1.0, 0.0, 0.0]))


@given(seed=st.integers(0, 999), threshold=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_equals_choosing_row_by_row(seed: int, threshold: float) -> None:
    """Slow reference: each row alone, processed if its own value is at most the threshold."""
    scores, negative = logits_with_ties(seed), logits_with_ties(seed + 1)
    gate, ids = Gate(measure="norm", below=threshold), torch.arange(4)[:, None]

    def step() -> CFG:
        return CFG(unconditional=lambda rows: negative[rows[:, 0]], scale=2.0)

    got = Gated(step(), gate=gate, name="cfg")(ids, scores)
    for row in range(4):
        alone = scores[row : row + 1]
        is_open = bool(alone.softmax(-1).square().sum().sqrt() <= threshold)
        want = step()(ids[row : row + 1], alone) if is_open else alone
        torch.testing.assert_close(got[row : row + 1], want)


def test_a_measure_of_two_streams_needs_exactly_one() -> None:
    """A step without streams, or with two, is refused with the measures that remain."""
    gate = Gate(measure="js", above=0.1)
    two = Spy()
    two.streams = two.streams * 2
    for step in (lambda ids, scores: scores, two):
        with pytest.raises(ParameterError, match=r"spy: gate: measure must be one of 'norm', .* got 'js'"):
            Gated(step, gate=gate, name="spy")
    shut = Gated(CFG(unconditional=lambda rows: SCORES, scale=2.0), gate=gate, name="cfg")
    assert shut(ROWS, SCORES) is SCORES  # equal streams diverge by 0
    neutral = Gated(CFG(unconditional=lambda rows: 1 / 0, scale=1.0), gate=gate, name="cfg")
    assert neutral(ROWS, SCORES) is SCORES


def test_the_trace_has_every_row() -> None:
    """The value and the decision of each row, notes of the processor at their rows, and the share of open rows."""
    trace = Trace(recording=True, rows=3)

    def step(ids: Tensor, scores: Tensor) -> Tensor:
        trace.note(length=torch.full((len(ids),), 7.0))
        return scores

    gated = Gated(step, gate=Gate(measure="max", below=0.6), name="step", trace=trace)
    trace.record("step", 0, SCORES, gated(ROWS, SCORES))
    assert [step.notes["fired"] for step in trace.steps] == [True, False, True]
    assert [step.notes["length"] for step in trace.steps] == [7.0, 0.0, 7.0]
    assert trace.steps[1].notes["gate"] == pytest.approx(0.9) and trace.fired == {"step": pytest.approx(2 / 3)}


def bound(text: str, prompts: list[str], **options: Any) -> Any:
    """Bind a chain to the tiny model."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, **options)


def test_rows_that_open_in_turn_read_their_prompts_once() -> None:
    """The reader keeps the rows whose gates are shut, so that no step reads more than its new tokens."""
    call = bound("cfg(2.0, negative='a negative prompt', gate={'measure': 'max', 'below': 0.5})", ["one", "two"])
    gated, (reader,) = call.composite.parts[0][1], call.composite.streams
    rows, tokens = call.inputs["input_ids"], []
    for step in range(4):
        peak = torch.zeros(2, 272)
        peak[step % 2, 0] = 50  # this row is sure: its gate is shut
        before = reader.tokens
        got = gated(rows, peak)
        assert torch.equal(got[step % 2], peak[step % 2]) and not torch.equal(got[1 - step % 2], peak[1 - step % 2])
        tokens.append(reader.tokens - before)
        rows = torch.cat([rows, torch.tensor([[step], [step + 9]])], dim=1)
    assert tokens == [34, 2, 2, 2], "two negative prompts of 17 tokens, then one token a row"


def test_equal_prompts_with_different_negative_prompts_keep_their_own() -> None:
    """A row of equal prompts is told apart by its place, also when it is the only open row."""
    call = bound("cfg(2.0, negative=['first', 'second'], gate={'measure': 'max', 'below': 0.5})", ["same", "same"])
    plain = bound("cfg(2.0, negative=['first', 'second'])", ["same", "same"])
    scores = torch.zeros(2, 272)
    scores[0, 0] = 50
    rows = call.inputs["input_ids"]
    got, want = (bound.composite.parts[0][1](rows, scores) for bound in (call, plain))
    assert torch.equal(got[1], want[1]) and torch.equal(got[0], scores[0])
