"""Counters of a trace: means by processor and quantity, and the interventions among them."""

from __future__ import annotations

import pytest
import torch

from logitkit.processors.engine.trace import Trace


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
