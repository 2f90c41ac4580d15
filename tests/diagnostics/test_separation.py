"""The area under the curve against all pairs, and its interval against its equation and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logitkit.diagnostics import area_under_curve
from logitkit.diagnostics.separation import Z
from logitkit.errors import ParameterError

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(scores, scores)
def test_it_is_the_share_of_pairs(members: list[float], others: list[float]) -> None:
    """Each pair counts 1 where the member is higher, a half where both are equal."""
    pairs = [1.0 if m > o else 0.5 if m == o else 0.0 for m in members for o in others]
    found = area_under_curve(members, others)
    assert math.isclose(found.value, sum(pairs) / len(pairs), abs_tol=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.low < found.value or found.value == 0) and (found.high > found.value or found.value == 1)


@given(scores, scores)
def test_exchanging_the_groups_mirrors_it(members: list[float], others: list[float]) -> None:
    """The area of exchanged groups, and its limits, are the rest to 1."""
    found, mirrored = area_under_curve(members, others), area_under_curve(others, members)
    assert np.allclose(found, [1 - mirrored.value, 1 - mirrored.high, 1 - mirrored.low], atol=1e-9)


@given(scores, scores)
def test_the_limits_solve_the_equation(members: list[float], others: list[float]) -> None:
    """At a limit inside (0, 1) the observed area is 1.96 standard errors away, with the errors of the limit."""
    found, m, n = area_under_curve(members, others), len(members), len(others)
    for area in (found.low, found.high):
        if 1e-9 < area < 1 - 1e-9:
            balance = (m + n) / 2 - 1
            spread = 1 + balance * (1 - area) / (2 - area) + balance * area / (1 + area)
            error = math.sqrt(area * (1 - area) * spread / (m * n))
            assert math.isclose(abs(found.value - area), Z * error, rel_tol=1e-6, abs_tol=1e-9)


def test_the_interval_covers_the_truth() -> None:
    """Of 500 samples of 25 and 25 normal scores with a true area of 0.8, at least 92 % of the intervals hold it."""
    generator, shift = np.random.default_rng(0), math.sqrt(2) * 0.8416212335729143
    held = 0
    for _ in range(500):
        found = area_under_curve(generator.normal(shift, 1, 25), generator.normal(0, 1, 25))
        held += found.low <= 0.8 <= found.high
    assert 460 <= held <= 495


@pytest.mark.parametrize("groups", [([], [1.0]), ([1.0], []), ([float("nan")], [1.0])])
def test_groups_without_scores_are_refused(groups: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ParameterError, match="at least one score, none of them NaN"):
        area_under_curve(*groups)
