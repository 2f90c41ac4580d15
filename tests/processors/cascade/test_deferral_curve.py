"""Deferral curves by hand, against a slow reference, and their intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.cascade.deferral_curve import area_under, deferral_curve, length_bias


def test_by_hand() -> None:
    """Small right on the two it is sure of, large right on all: deferring the unsure gains at once."""
    rates, quality = deferral_curve([-1, -4, -2, -3], [1, 0, 1, 0], [1, 1, 1, 1])
    assert rates.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert quality.tolist() == [0.5, 0.75, 1, 1, 1]
    got = area_under([-1, -4, -2, -3], [1, 0, 1, 0], [1, 1, 1, 1])
    assert got.area == pytest.approx((0.5 / 2 + 0.75 + 1 + 1 + 1 / 2) / 4)
    assert got.random == 0.75 and got.gain == pytest.approx(got.area - 0.75)


@given(items=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=5))
@settings(deadline=None)
def test_ties_are_deferred_in_expectation(items: list[tuple[int, int, int]]) -> None:
    """The mean over every order that the scores allow, enumerated."""
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


def test_a_score_without_information_is_random_deferral() -> None:
    """A straight line; no gain, in every resample."""
    generator = np.random.default_rng(0)
    small, large = generator.random(50), generator.random(50)
    _, quality = deferral_curve(np.zeros(50), small, large)
    np.testing.assert_allclose(quality, np.linspace(small.mean(), large.mean(), 51), atol=1e-12)
    assert area_under(np.zeros(50), small, large, resamples=20).gain_interval == pytest.approx((0, 0), abs=1e-12)


def test_intervals_cover() -> None:
    """Of 200 samples of 100 items, the 90 % interval covers the area of the whole in 83 to 96 %.

    A binomial with p = 0.9 leaves that range with probability below 0.002; the samples are fixed by the seed.
    """
    generator = np.random.default_rng(1)
    score, small = generator.random(20_000), generator.random(20_000) < 0.4
    large = generator.random(20_000) < 0.9 - 0.4 * score
    truth = area_under(score, small, large, resamples=1).area
    covered = 0
    for seed in range(200):
        rows = generator.integers(0, 20_000, 100)
        low, high = area_under(score[rows], small[rows], large[rows], resamples=200, level=0.9, seed=seed).interval
        covered += low <= truth <= high
    assert 166 <= covered <= 192


def test_length_bias_by_hand() -> None:
    """A sum falls with the length; a constant score has no bias; ties share their rank."""
    assert length_bias([-1, -2, -3], [1, 2, 3]) == pytest.approx(-1)
    assert length_bias([5, 5, 5], [1, 2, 3]) == 0
    assert length_bias([1, 1, 2], [1, 2, 3]) == pytest.approx(np.corrcoef([0.5, 0.5, 2], [0, 1, 2])[0, 1])


def test_bad_input() -> None:
    """Empty, unequal, NaN."""
    for columns in (([], [], []), ([1, 2], [1], [1, 2])):
        with pytest.raises(ParameterError, match="equally many, at least one"):
            area_under(*columns)
    with pytest.raises(ParameterError, match="must be numbers, got 'NaN'"):
        deferral_curve([1, np.nan], [0, 1], [1, 1])
    with pytest.raises(ParameterError, match="level must be"):
        area_under([1], [1], [1], level=1.0)
