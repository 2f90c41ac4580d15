"""Gates: measures by hand and by definition, thresholds, and errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.engine import Gate, divergence
from logitkit.processors.engine.gate import OWN_MEASURES, PAIR_MEASURES, own_measure

ROW = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
LN2 = math.log(2)


@pytest.mark.parametrize(
    ("measure", "value"),
    # -log2 p is 1 with probability 1/2 and 2 otherwise: mean 1.5 bits, variance 1/4 bits squared
    [
        ("norm", math.sqrt(0.375)),
        ("max", 0.5),
        ("margin", 0.25),
        ("entropy", 1.5 * LN2),
        ("varentropy", 0.25 * LN2**2),
    ],
)
def test_measures_by_hand(measure: str, value: float) -> None:
    """The row (1/2, 1/4, 1/4, 0), as logits of any scale, and with finfo.min in the place of -inf."""
    masked = ROW.masked_fill(-math.inf == ROW, torch.finfo(torch.float32).min)
    for row in (ROW, ROW + 7, masked):
        assert own_measure(row, measure).item() == pytest.approx(value, abs=1e-6)  # type: ignore[arg-type]


@given(masses=st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any))
@settings(max_examples=50, deadline=None)
def test_measures_equal_their_definitions(masses: list[int]) -> None:
    """Each measure equals the sum of its terms in plain Python."""
    p = [mass / sum(masses) for mass in masses]
    entropy = -sum(x * math.log(x) for x in p if x)
    first, second = sorted(p, reverse=True)[:2]
    expected = {
        "norm": math.sqrt(sum(x * x for x in p)),
        "max": first,
        "margin": first - second,
        "entropy": entropy,
        "varentropy": sum(x * (-math.log(x) - entropy) ** 2 for x in p if x),
    }
    for measure in OWN_MEASURES:
        got = own_measure(torch.tensor([p], dtype=torch.float64).log(), measure)  # type: ignore[arg-type]
        assert got.item() == pytest.approx(expected[measure], abs=1e-5)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_measures_of_two_streams_are_divergences(measure: str) -> None:
    """The value is the divergence of the row from the second stream."""
    second = torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log()
    gate = Gate(measure=measure, above=0.1)  # type: ignore[arg-type]
    assert gate.compares and torch.equal(gate.value(ROW, second), divergence(ROW, second, measure))  # type: ignore[arg-type]


def test_above_and_below_are_complements() -> None:
    """A row at the threshold is open below and shut above; NaN opens neither."""
    values = torch.tensor([0.25, 0.5, 0.75, math.nan])
    above, below = Gate(measure="max", above=0.5), Gate(measure="max", below=0.5)
    assert above.opens(values).tolist() == [False, False, True, False]
    assert below.opens(values).tolist() == [True, True, False, False]


def test_wrong_gates_are_refused() -> None:
    """The errors name the rule."""
    with pytest.raises(ParameterError, match="Gate: measure must be one of 'norm', 'max'"):
        Gate(measure="surprise", above=1.0)  # type: ignore[arg-type]
    for thresholds in ({}, {"above": 1.0, "below": 0.5}):
        with pytest.raises(ParameterError, match="Gate: above must be given, or below instead"):
            Gate(measure="max", **thresholds)
    for name in ("above", "below"):
        with pytest.raises(ParameterError, match=f"Gate: {name} must be a number, got nan"):
            Gate(measure="max", **{name: float("nan")})
    with pytest.raises(ParameterError, match="Gate: alpha must be an order >= 0 for renyi"):
        Gate(measure="renyi", above=1.0, alpha=-1.0)


def test_a_measure_of_two_streams_needs_the_second() -> None:
    """Without it one error, also where Python leaves out assertions."""
    with pytest.raises(ParameterError, match="gate: second must be the logits of a second stream for measure 'js'"):
        Gate(measure="js", above=0.1).value(torch.zeros(1, 3))
