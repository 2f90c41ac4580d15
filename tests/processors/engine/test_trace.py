"""Counters of a trace: means by processor and quantity, and the interventions among them."""

from __future__ import annotations

import math

import pytest
import torch

from logitkit.processors.engine.trace import ReaderCounts, Trace


def test_means_are_kept_by_processor_and_quantity() -> None:
    """Two processors may average a quantity of the same name; each mean is over all rows of all steps."""
    trace = Trace()
    trace.average("first", "share", torch.tensor([1.0, 0.0]))
    trace.average("first", "share", torch.tensor([1.0]))
    trace.average("second", "share", torch.tensor([0.25]))
    assert trace.means == {"first": {"share": pytest.approx(2 / 3)}, "second": {"share": 0.25}}


def test_interventions_are_declared_by_the_processor() -> None:
    """A mean is an intervention when the processor says so, whatever the name of the quantity; gates are included."""
    trace = Trace(rows=4)
    trace.average("cascade", "a name of any kind", torch.tensor([0.5]), intervention=True)
    trace.average("cascade", "deferral", torch.tensor([0.1]))
    trace.count_fired("uscd", torch.tensor([True, False, False, False]))
    assert trace.interventions == {"uscd": {"fired": 0.25}, "cascade": {"a name of any kind": 0.5}}


def test_a_rewound_trace_drops_what_was_reported_since_the_mark() -> None:
    """Gates, means and steps return to the mark, so that a repeated step counts once."""
    trace = Trace(rows=2, recording=True)
    values, scores = torch.tensor([1.0, 0.0]), torch.zeros(2, 2)

    def step() -> None:
        trace.count_fired("gate", values.bool())
        trace.average("gate", "share", values)
        trace.record("gate", 0, scores, scores)

    mark = trace.mark()
    step()
    trace.rewind(mark)
    assert not trace.fired and not trace.means and not trace.steps
    step()
    assert trace.fired == {"gate": 0.5} and trace.means == {"gate": {"share": 0.5}} and len(trace.steps) == 2


def test_a_rewound_trace_keeps_what_was_reported_before_the_mark() -> None:
    """Totals of before the mark stay, notes of the dropped step go, and a mark serves several rewinds."""
    trace = Trace(rows=2, recording=True)
    one, scores = torch.tensor([True]), torch.zeros(1, 2)
    trace.count_fired("gate", one)
    trace.average("gate", "share", torch.tensor([0.5]))
    trace.record("gate", 0, scores, scores)
    mark = trace.mark()
    for _ in range(2):
        trace.count_fired("gate", one)
        trace.count_fired("other", one)
        trace.average("gate", "share", torch.tensor([1.0]))
        trace.record("gate", 1, scores, scores)
        trace.note(fired=one)
        trace.rewind(mark)
    assert trace.fired == {"gate": 0.5} and trace.means == {"gate": {"share": 0.5}}
    trace.record("gate", 1, scores, scores)
    assert [step.position for step in trace.steps] == [0, 1] and trace.steps[1].notes == {}


def test_a_recorded_step_by_hand() -> None:
    """The most probable tokens before and after, best first, and the divergence of (1/4, 3/4) from (1, 0) in bits."""
    trace = Trace(recording=True, top=1)
    before, after = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.0, -torch.inf]])
    trace.record("cut", 3, before, after)
    (step,) = trace.steps
    assert step.before == ((1, pytest.approx(0.75)),) and step.after == ((0, 1.0),) and step.position == 3
    middle = 0.5 * (0.25 * math.log2(0.25 / 0.625) + 0.75 * math.log2(0.75 / 0.375)) + 0.5 * math.log2(1 / 0.625)
    assert step.js_bits == pytest.approx(middle, abs=1e-6)


def test_a_plain_copy_is_independent_and_has_the_same_summary() -> None:
    """Counts after the copy do not reach it; the summary has calls, rows, forwards, gates, means and notices."""
    trace = Trace(calls=2, rows=4, notices=["a notice"], readers={"far": ReaderCounts(3, 7)})
    trace.count_fired("gate", torch.tensor([True, False]))
    trace.average("gate", "share", torch.tensor([0.5]))
    plain = trace.plain()
    want = {
        "calls": 2,
        "rows": 4,
        "forwards": {"far": 3},
        "fired": {"gate": 0.25},
        "means": {"gate": {"share": 0.5}},
        "notices": ["a notice"],
    }
    trace.count_fired("gate", torch.tensor([True]))
    trace.average("gate", "share", torch.tensor([1.0]))
    trace.notices.append("another")
    summary = plain.summary()
    assert {name: summary[name] for name in want} == want and summary["fusion"]["state"] == "lazy"
    assert trace.summary()["fired"] == {"gate": 0.5} and trace.summary()["means"] == {"gate": {"share": 0.75}}
