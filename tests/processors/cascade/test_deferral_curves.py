"""Deferral curves and the areas under them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.cascade import area_under_deferral_curve, deferral_curve, length_bias


def test_a_curve_by_hand() -> None:
    """The small model is right on its two most confident items, the large one on all four."""
    rates, quality = deferral_curve([-1, -4, -2, -3], [1, 0, 1, 0], [1, 1, 1, 1])
    assert rates.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert quality.tolist() == [0.5, 0.75, 1, 1, 1]
    got = area_under_deferral_curve([-1, -4, -2, -3], [1, 0, 1, 0], [1, 1, 1, 1])
    assert got.area == pytest.approx((0.5 / 2 + 0.75 + 1 + 1 + 1 / 2) / 4)
    assert got.random == 0.75 and got.gain == pytest.approx(got.area - 0.75)


@given(items=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=5))
@settings(deadline=None)
def test_ties_are_deferred_in_expectation(items: list[tuple[int, int, int]]) -> None:
    """The curve is the mean over all orders that the scores permit, by enumeration."""
    n = len(items)
    orders = [
        order
        for order in itertools.permutations(range(n))
        if all(items[a][0] <= items[b][0] for a, b in itertools.pairwise(order))
    ]
    want = [
        np.mean([sum(items[i][2 if i in order[:k] else 1] for i in range(n)) / n for order in orders])
        for k in range(n + 1)
    ]
    got = deferral_curve(*zip(*items, strict=True))[1]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_a_constant_score_is_random_deferral() -> None:
    """A constant score gives a straight line, and a gain of zero in every resample."""
    generator = np.random.default_rng(0)
    small, large, score = generator.random(50), generator.random(50), np.zeros(50)
    _, quality = deferral_curve(score, small, large)
    np.testing.assert_allclose(quality, np.linspace(small.mean(), large.mean(), 51), atol=1e-12)
    area = area_under_deferral_curve(score, small, large, resamples=20)
    assert area.gain_interval == pytest.approx((0, 0), abs=1e-12)


def test_intervals_cover_the_true_area() -> None:
    """Of 200 samples of 100 items, the 90 % interval covers the area of the population in 83 to 96 %.

    A binomial with p = 0.9 leaves that range with probability below 0.002; the samples are fixed by the seed.
    """
    generator = np.random.default_rng(1)
    score, small = generator.random(20_000), generator.random(20_000) < 0.4
    large = generator.random(20_000) < 0.9 - 0.4 * score
    truth = area_under_deferral_curve(score, small, large, resamples=1).area
    covered = 0
    for seed in range(200):
        rows = generator.integers(0, 20_000, 100)
        area = area_under_deferral_curve(score[rows], small[rows], large[rows], resamples=200, level=0.9, seed=seed)
        covered += area.interval[0] <= truth <= area.interval[1]
    assert 166 <= covered <= 192


def test_length_bias_by_hand() -> None:
    """The correlation is -1 for a score that falls with the length and 0 for a constant one; ties share a rank."""
    assert length_bias([-1, -2, -3], [1, 2, 3]) == pytest.approx(-1)
    assert length_bias([5, 5, 5], [1, 2, 3]) == 0 == length_bias([1, 2, 3], [7, 7, 7]) == length_bias([1], [2])
    assert length_bias([-1, -2], [1, 2]) == pytest.approx(-1)
    assert length_bias([1, 1, 2], [1, 2, 3]) == pytest.approx(np.corrcoef([0.5, 0.5, 2], [0, 1, 2])[0, 1])


def test_bad_columns_and_settings_are_refused() -> None:
    """Empty columns, columns of different lengths, NaN and a confidence level of 1 raise a ParameterError."""
    for columns in (([], [], []), ([1, 2], [1], [1, 2])):
        with pytest.raises(ParameterError, match="of one length, at least 1"):
            area_under_deferral_curve(*columns)
    with pytest.raises(ParameterError, match="must be numbers, got 'NaN'"):
        deferral_curve([1, np.nan], [0, 1], [1, 1])
    with pytest.raises(ParameterError, match="level and resamples must be"):
        area_under_deferral_curve([1], [1], [1], level=1.0)


def test_intervals_by_hand() -> None:
    """Two items have four equally likely resamples, so the ends of the 95 % intervals are the extremes.

    Both items: the curve is 1/2, 1, 1 with the area 7/8, and random deferral has 3/4. The first item alone goes from
    0 to 1, with the area 1/2, and the second alone stays at 1; their gains are zero.
    """
    got = area_under_deferral_curve([1, 2], [0, 1], [1, 1])
    assert (got.area, got.random, got.gain) == (0.875, 0.75, 0.125)
    assert got.interval == (0.5, 1.0) and got.gain_interval == (0.0, 0.125)
