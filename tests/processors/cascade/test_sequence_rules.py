"""Deferral scores of whole outputs, and thresholds for them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.cascade import SequenceRule, sequence_score, threshold_for_rate

INF = torch.inf
# Outputs of three tokens, one token and none.
LOGPS = torch.tensor([[-1.0, -3.0, -2.0, 0.0], [-4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("rule", "alpha", "want"),
    [
        ("sum", 0.0, [-6.0, -4.0, -INF]),
        ("average", 0.0, [-2.0, -4.0, -INF]),
        ("quantile", 0.0, [-3.0, -4.0, -INF]),
        ("quantile", 0.25, [-2.5, -4.0, -INF]),  # halfway between -3 and -2
        ("quantile", 1.0, [-1.0, -4.0, -INF]),
    ],
)
def test_scores_by_hand(rule: SequenceRule, alpha: float, want: list[float]) -> None:
    """Scores ignore tokens outside the mask, and an output without tokens scores -inf."""
    assert sequence_score(LOGPS, MASK, rule, alpha=alpha).tolist() == want
    without_columns = sequence_score(LOGPS[:1, :0], MASK[:1, :0], rule, alpha=alpha)
    assert without_columns.tolist() == [-INF]


@given(values=st.lists(st.floats(-10, 0), min_size=1, max_size=30), alpha=st.floats(0, 1))
@settings(deadline=None)
def test_the_quantile_equals_that_of_numpy(values: list[float], alpha: float) -> None:
    """The quantile is interpolated linearly, as by `numpy.quantile`."""
    row = torch.tensor([values], dtype=torch.float64)
    got = sequence_score(row, torch.ones_like(row).bool(), "quantile", alpha=alpha)
    assert float(got) == pytest.approx(float(np.quantile(values, alpha)), abs=1e-9)


@given(values=st.lists(st.integers(-5, 0), min_size=1, max_size=30), rate=st.floats(0, 1))
@settings(deadline=None)
def test_a_threshold_defers_at_most_its_rate(values: list[int], rate: float) -> None:
    """At most the rate is deferred, and the next larger score as threshold would exceed it."""
    scores = torch.tensor(values, dtype=torch.float64)
    threshold = threshold_for_rate(scores, rate)
    assert int((scores < threshold).sum()) <= rate * len(values) + 1e-6
    if threshold < math.inf:
        assert int((scores <= threshold).sum()) > rate * len(values) - 1e-6


def test_bad_scores_and_settings_are_refused() -> None:
    """An empty calibration set, NaN, and a rate or level outside 0 to 1 raise a ParameterError."""
    with pytest.raises(ParameterError, match="at least one item, got 'an empty calibration set'"):
        threshold_for_rate(torch.tensor([]), 0.5)
    with pytest.raises(ParameterError, match="scores must be numbers, got 'NaN'"):
        threshold_for_rate(torch.tensor([0.0, torch.nan]), 0.5)
    with pytest.raises(ParameterError, match="rate must be"):
        threshold_for_rate(torch.tensor([0.0]), 1.5)
    with pytest.raises(ParameterError, match="alpha must be"):
        sequence_score(LOGPS, MASK, "quantile", alpha=2.0)
    with pytest.raises(ParameterError, match="logps must be numbers, got 'NaN'"):
        sequence_score(LOGPS * torch.nan, MASK, "sum")
