"""Intervals, checked by hand, against a slow maximisation, and by the coverage they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import optimize, stats

from logitkit.bench.report.intervals import (
    difference_interval,
    mean_interval,
    paired_interval,
    proportion_interval,
)

Z = 1.959963984540054
counts = some.integers(1, 60).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n)))
tables = some.integers(1, 60).flatmap(
    lambda n: some.integers(0, n).flatmap(
        lambda gained: some.tuples(some.just(gained), some.integers(0, n - gained), some.just(n))
    )
)


@given(counts)
def test_wilson_holds_the_proportion_and_is_never_a_point(case: tuple[int, int]) -> None:
    """The interval holds the proportion, lies between 0 and 1, and agrees with Wilson's formula."""
    successes, samples = case
    mean, low, high = proportion_interval(successes, samples)
    assert mean == successes / samples and 0 <= low <= mean <= high <= 1 and high - low > 0.01
    centre = (successes + Z**2 / 2) / (samples + Z**2)
    half = Z / (samples + Z**2) * math.sqrt(successes * (samples - successes) / samples + Z**2 / 4)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-12)


@settings(max_examples=60)
@given(tables)
def test_tango_holds_the_difference_and_is_never_a_point(case: tuple[int, int, int]) -> None:
    """The interval holds the difference, is not a point, and changes its sign with the two strategies."""
    gained, lost, samples = case
    mean, low, high = paired_interval(gained, lost, samples)
    assert mean == (gained - lost) / samples and -1 <= low <= mean <= high <= 1 and high - low > 0.05
    assert paired_interval(lost, gained, samples) == pytest.approx((-mean, -high, -low), abs=1e-9)


@pytest.mark.parametrize("samples", [1, 10, 60, 1000])
def test_tango_without_differences_by_hand(samples: int) -> None:
    """If no sample differs, the statistic is n d / sqrt(n d (1 - d)), which is z at d = z² / (n + z²)."""
    bound = Z**2 / (samples + Z**2)
    assert paired_interval(0, 0, samples) == pytest.approx((0, -bound, bound), abs=1e-9)


@pytest.mark.parametrize("case", [(7, 1, 21), (3, 2, 10), (0, 4, 10), (12, 5, 40), (10, 0, 10)])
def test_tango_by_maximisation(case: tuple[int, int, int]) -> None:
    """At a bound, the statistic with the most likely nuisance probability, found numerically, is 1.96."""
    gained, lost, samples = case
    for bound in paired_interval(*case)[1:]:
        if abs(bound) == 1:
            continue

        def loss(only_first: float, bound: float = bound) -> float:
            cells = [
                (gained, only_first + bound),
                (lost, only_first),
                (samples - gained - lost, 1 - 2 * only_first - bound),
            ]
            return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

        ends = (max(0.0, -bound), (1 - bound) / 2)
        found = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
        only_first = min((found, *ends), key=loss)
        statistic = (gained - lost - samples * bound) / math.sqrt(samples * (2 * only_first + bound * (1 - bound)))
        assert abs(statistic) == pytest.approx(stats.norm.ppf(0.975), abs=1e-4)


def test_intervals_of_ten_samples_by_hand() -> None:
    """Ten right answers of ten give 10 / (10 + z²) to 1; two equal strategies give z² / (10 + z²) on both sides."""
    assert mean_interval([1.0] * 10, share=True) == pytest.approx((1, 10 / (10 + Z**2), 1))
    assert mean_interval([0.0] * 10, share=True) == pytest.approx((0, 0, Z**2 / (10 + Z**2)))
    for value in (0.0, 1.0, 0.5):
        mean, low, high = difference_interval([value] * 10, [value] * 10, share=True)
        assert mean == 0 and high == pytest.approx(Z**2 / (10 + Z**2)) == pytest.approx(-low)


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0])
def test_equal_shares_have_the_interval_of_their_mean(value: float) -> None:
    """Samples that are all right in the same part have Wilson's interval of that part, and not a point."""
    assert mean_interval([value] * 10, share=True) == proportion_interval(10 * value, 10)


def test_equal_losses_have_no_interval() -> None:
    """Equal values without an upper bound are a point, also if they are 0 or 1; equal differences are one too."""
    for value in (0.0, 1.0, 3.5):
        assert mean_interval([value] * 10, share=False) == (value, value, value)
        assert difference_interval([value] * 10, [value] * 10, share=False) == (0, 0, 0)


def test_values_outside_0_to_1_are_no_shares() -> None:
    """A bare number is treated as a share only where its values are shares."""
    assert mean_interval([3.0] * 10, share=True) == (3, 3, 3)
    assert mean_interval([-0.5] * 10, share=True) == (-0.5, -0.5, -0.5)


@settings(max_examples=25, deadline=None)
@given(some.lists(some.sampled_from([0.0, 0.5, 1.0]), min_size=10, max_size=10))
def test_every_share_of_ten_samples_has_an_interval(values: list[float]) -> None:
    """Whatever ten samples are, the interval of their mean share holds the mean and is not a point."""
    mean, low, high = mean_interval(values, share=True)
    assert low <= mean <= high and high - low > 0.05


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_score_intervals_cover_what_they_promise(share: float) -> None:
    """Averaged over all outcomes of 40 samples, by their exact probabilities, Wilson's intervals hold the truth."""
    outcomes = np.arange(41)
    held = [low <= share <= high for _, low, high in (proportion_interval(int(k), 40) for k in outcomes)]
    assert 0.92 <= float(stats.binom.pmf(outcomes, 40, share) @ np.array(held, float)) <= 1


def test_tango_covers_what_it_promises() -> None:
    """Summed over all tables of 30 pairs by their exact probabilities, the intervals hold the true difference 0.15."""
    gain, loss, samples = 0.2, 0.05, 30
    covered = 0.0
    for gained in range(samples + 1):
        for lost in range(samples + 1 - gained):
            p = stats.multinomial.pmf([gained, lost, samples - gained - lost], samples, [gain, loss, 1 - gain - loss])
            if p > 1e-5:
                _, low, high = paired_interval(gained, lost, samples)
                covered += p * (low <= gain - loss <= high)
    assert 0.93 <= covered <= 0.98
