"""Paired statistics, checked by hand, by enumeration, and by the error rates they promise."""

from __future__ import annotations

import gc
import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from logitkit.bench.report import Comparison, bootstrap_interval, compare, holm, intervals, mcnemar, sign_flips
from logitkit.bench.report.statistics import compare_pairs, shown_better
from logitkit.errors import ParameterError


def test_holm_by_hand() -> None:
    """Holm multiplies the sorted p-values by 3, 2 and 1; adjusted values never decrease and never exceed 1."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.01, 0.04, 0.05, 0.3]) | st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(ps: list[float]) -> None:
    """For any p-values, also equal ones and those of 0 and 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)  # statsmodels collects garbage at every call, which is slow
        assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist())


def test_mcnemar_by_hand() -> None:
    """Five samples gained and none lost have the p-value 2/32; without gains and losses the p-value is 1."""
    assert mcnemar(5, 0) == pytest.approx(2 / 32) and mcnemar(3, 3) == 1 == mcnemar(0, 0)


def test_sign_flips_by_enumeration() -> None:
    """The p-value equals the share of all 2^6 choices of signs with a mean as far from 0."""
    d = np.array([0.5, -0.1, 0.7, 0.2, -0.3, 0.4])
    means = [np.mean(d * signs) for signs in itertools.product([1, -1], repeat=6)]
    share = np.mean([abs(mean) >= abs(d.mean()) - 1e-12 for mean in means])
    assert sign_flips(d) == pytest.approx(share) and sign_flips(np.zeros(4)) == 1
    assert sign_flips(np.array([0.5])) == 1 and sign_flips(np.array([])) == 1
    assert sign_flips(np.array([0.5, 0.0, 0.1, 0.3])) == 0.25  # a difference of zero changes nothing: 2 of 2^3


def test_intervals_cover_what_they_promise() -> None:
    """95 % intervals of 200 skewed samples cover the mean; fewer than 175 have a false-alarm rate of 1 in 1000."""
    rng = np.random.default_rng(0)
    found = [bootstrap_interval(rng.exponential(size=40)) for _ in range(200)]
    assert 175 <= sum(low <= 1 <= high for _, low, high in found) < 200


def test_the_interval_of_constant_values_is_a_point() -> None:
    """The interval of equal values and of a single value is a point, without a warning."""
    assert bootstrap_interval(np.ones(5)) == (1, 1, 1) and bootstrap_interval([3.0]) == (3, 3, 3)
    assert bootstrap_interval([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == (0.5, 0.5, 0.5)


def test_weights_of_one_give_the_unweighted_interval() -> None:
    """A ratio of sums with weights of 1 is the mean, with the same interval to the last bits."""
    values = np.random.default_rng(3).exponential(size=30)
    assert bootstrap_interval(values, np.ones(30)) == pytest.approx(bootstrap_interval(values), rel=1e-9)


def test_weighted_intervals_cover_what_they_promise() -> None:
    """95 % intervals of 200 ratios of sums cover the true ratio 2; the bound is that of the unweighted test."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        weights = rng.integers(1, 9, 40)
        _, low, high = bootstrap_interval(2 * weights + rng.normal(size=40) * weights, weights)
        covered += low <= 2 <= high
    assert 175 <= covered < 200


def test_a_difference_is_shown_only_after_correction() -> None:
    """Seven gains without a loss are shown for one strategy, but not for one of twenty that are compared."""
    base, gain = [0.0] * 20, [1.0] * 7 + [0.0] * 13
    (alone,) = compare(base, [gain])
    assert alone.up == 7 and alone.down == 0 and alone.p == pytest.approx(2 / 128) and alone.test.startswith("McNemar")
    assert alone.conclusion("higher") == "better" and alone.conclusion("lower") == "worse"
    assert alone.conclusion(None) == "different"
    many = compare(base, [gain, *[base] * 19])
    assert many[0].adjusted == pytest.approx(20 * 2 / 128) and many[0].conclusion("higher") == "not shown"
    assert many[1].difference == 0 and many[1].p == 1 and many[1].conclusion("higher") == "not shown"


def test_strategies_with_other_samples_are_corrected_together() -> None:
    """Holm's correction counts every strategy, also if an unfinished run gave each of them other samples."""
    gain = [1.0] * 7 + [0.0] * 13
    found = compare_pairs([([0.0] * 20, gain), ([0.0] * 19, gain[:19]), ([0.0] * 18, [0.0] * 18)])
    assert [comparison.p for comparison in found] == pytest.approx([2 / 128, 2 / 128, 1])
    assert [comparison.adjusted for comparison in found] == pytest.approx([6 / 128, 6 / 128, 1])


def test_who_is_shown_to_be_better_by_hand() -> None:
    """Of three pairs the two with twenty gains are shown; means that differ by one sample are not."""
    samples = [str(number) for number in range(20)]
    low, high = dict.fromkeys(samples, 0.0), dict.fromkeys(samples, 1.0)
    values = {"low": low, "one": low | {"3": 1.0}, "high": high, "elsewhere": {"other": 1.0}}
    want = {"low": ("high",), "one": ("high",), "high": (), "elsewhere": ()}
    assert shown_better(values, "higher", share=True) == want
    assert shown_better(values, "lower", share=True) == {**dict.fromkeys(values, ()), "high": ("low", "one")}
    assert shown_better({"low": low}, "higher") == {"low": ()} and shown_better({}, "higher") == {}


def test_who_is_shown_to_be_better_is_corrected_over_all_pairs() -> None:
    """Seven gains of twenty are shown for one pair (p 2/128), but not if they are one of 45 pairs."""
    base = {str(number): 0.0 for number in range(20)}
    gain = base | {str(number): 1.0 for number in range(7)}
    assert shown_better({"base": base, "gain": gain}, "higher")["base"] == ("gain",)
    many = shown_better({"gain": gain} | {f"base {number}": base for number in range(9)}, "higher")
    assert not any(many.values())


def test_numbers_are_compared_by_their_differences() -> None:
    """The paired test finds a shift that is small compared with the spread of the samples."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=30) * 10
    (found,) = compare(base.tolist(), [(base + 0.1 + rng.normal(size=30) * 0.05).tolist()])
    assert found.test == "sign flips" and found.conclusion("higher") == "better" and found.low > 0.07


def test_no_false_calls() -> None:
    """Of 40 pairs of equal strategies at most 7 are shown to differ; chance exceeds 7 once in 1000 runs."""
    rng = np.random.default_rng(2)
    pairs = [(rng.integers(0, 2, 50), rng.integers(0, 2, 50)) for _ in range(40)]
    calls = [compare(a.tolist(), [b.tolist()])[0].conclusion("higher") != "not shown" for a, b in pairs]
    assert sum(calls) <= 7


def compared(**changes: float) -> Comparison:
    """Return a comparison that shows a gain, with some fields changed."""
    shown: Any = {"samples": 9, "difference": 0.2, "low": 0.1, "high": 0.3, "p": 0.01, "adjusted": 0.01}
    return Comparison(**shown | changes, up=5, down=0, test="sign flips")


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, "better"),
        ({"low": 1e-9}, "better"),
        ({"low": 0.0}, "not shown"),  # an interval that touches zero
        ({"low": -0.1}, "not shown"),
        ({"low": -0.3, "high": -0.1, "difference": -0.2}, "worse"),
        ({"low": -0.3, "high": 0.0, "difference": -0.2}, "not shown"),
        ({"adjusted": 0.05}, "not shown"),
        ({"adjusted": 0.0499}, "better"),
    ],
)
def test_the_conclusion_by_hand(changes: dict[str, float], want: str) -> None:
    """A difference is shown where the corrected p-value is below .05 and the interval excludes zero."""
    comparison = compared(**changes)
    assert comparison.conclusion("higher") == want
    opposite = {"better": "worse", "worse": "better"}.get(want, want)
    assert comparison.conclusion("lower") == opposite
    assert comparison.conclusion(None) == ("different" if want != "not shown" else want)


def test_the_interval_of_two_values_by_hand() -> None:
    """Of four equally likely resamples one has only the first value and one only the second: both are the bounds."""
    assert bootstrap_interval([0.0, 1.0]) == (0.5, 0.0, 1.0)
    assert bootstrap_interval([0.5, 2.0], [2.0, 0.5]) == (1.0, 0.25, 4.0)


def test_resamples_without_a_weight_are_left_out_of_the_interval() -> None:
    """Of 26 equally likely draws with a weight, 7 have the ratio 0 and 7 have 1: both are the bounds."""
    assert bootstrap_interval([0.0, 1.0, 0.0], [0.0, 1.0, 1.0]) == (0.5, 0.0, 1.0)


def test_left_out_resamples_do_not_change_the_others() -> None:
    """The bounds are quantiles of the same draws, without those that have no ratio."""
    weights = np.array([1.0, 2.0, 1.0] + [0.0] * 9)
    values = np.array([1.0, 0.0, 1.0] + [0.0] * 9)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        draws = stats.bootstrap(
            (values, weights),
            lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
            n_resamples=9999,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    assert 0.02 < np.isnan(draws).mean() < 0.05  # (9 / 12) ** 12 is 0.03
    want = np.nanpercentile(draws, [2.5, 97.5])
    assert intervals._bootstrap((values, weights), "percentile", 0) == pytest.approx(want)
    mean, low, high = bootstrap_interval(values, weights)
    assert low <= mean <= high


def test_weights_without_a_sum_are_an_error() -> None:
    """A ratio of sums does not exist then."""
    with pytest.raises(ParameterError, match=r"the sum of the weights must be a number other than 0, got 0\.0"):
        bootstrap_interval([1.0, 2.0], [0.0, 0.0])


def test_the_interval_is_bca_with_the_documented_resamples() -> None:
    """For skewed values the interval is scipy's BCa interval of 9,999 resamples, and not the percentile interval."""
    values = np.random.default_rng(5).exponential(size=12)
    bounds = {
        method: stats.bootstrap(
            (values,), np.mean, n_resamples=9999, method=method, rng=np.random.default_rng(7)
        ).confidence_interval
        for method in ("BCa", "percentile")
    }
    _, low, high = bootstrap_interval(values, seed=7)
    assert (low, high) == pytest.approx(bounds["BCa"], rel=1e-12)
    assert low > bounds["percentile"].low and high > bounds["percentile"].high


def test_where_bca_is_undefined_the_interval_is_the_percentile_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are not finite are replaced by those of the percentile method."""
    for undefined in ((math.nan, math.nan), (0.0, math.nan)):
        bounds = {"BCa": undefined, "percentile": (1.0, 2.0)}
        monkeypatch.setattr(intervals, "_bootstrap", lambda data, method, seed, bounds=bounds: bounds[method])
        assert bootstrap_interval([1.0, 3.0]) == (2.0, 1.0, 2.0)
