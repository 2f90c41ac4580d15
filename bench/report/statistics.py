"""Paired statistics of two strategies on the same samples: intervals, tests and corrections.

Both strategies answer the same samples, so the differences of the samples are resampled. `compare` reports a bootstrap
interval of the mean difference (BCa; Efron 1987), a p-value, and the p-value after Holm's correction (1979)
over all strategies that are compared with the same baseline. The test is McNemar's exact test if every sample is right
or wrong, and a test that flips the signs of the differences otherwise.

`bootstrap_interval` is the only bootstrap of the benchmark and of the studies.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitkit.errors import MissingPackageError

try:
    from scipy import stats
    from statsmodels.stats.multitest import multipletests
except ModuleNotFoundError as error:
    raise MissingPackageError("bench", (error.name or "scipy").partition(".")[0], "bench") from error

LEVEL = 0.05  # significance level after correction
RESAMPLES = 9999
BATCH_ELEMENTS = 2**24  # resampled values held in memory at once

Numbers = NDArray[np.float64]
Conclusion = Literal["better", "worse", "not shown", "different"]


class Interval(NamedTuple):
    """A mean with its 95 % interval.

    Examples:
        >>> mean, low, high = Interval(0.5, 0.25, 0.75)
        >>> high - low
        0.5
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One strategy compared with the baseline on the same samples.

    Attributes:
        samples: number of pairs.
        difference: mean of strategy minus baseline.
        low, high: 95 % bootstrap interval of the difference.
        p: two-sided p-value of the hypothesis that there is no difference, before correction.
        adjusted: the p-value after Holm's correction over strategies.
        up, down: number of samples on which the strategy is above and below the baseline.
        test: name of the test that gives ``p``.

    Examples:
        >>> (comparison,) = compare([0.0, 0.1, 0.2], [[0.0, 0.1, 0.3]])
        >>> comparison.up, comparison.down, comparison.conclusion("higher")
        (1, 0, 'not shown')
    """

    samples: int
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    up: int
    down: int
    test: str

    def conclusion(self, better: str | None) -> Conclusion:
        """Return the conclusion: a difference is shown if both the corrected test and the interval show it.

        Args:
            better: whether ``higher`` or ``lower`` values are better; None for a metric without a direction.
        """
        if self.adjusted >= LEVEL or self.low <= 0 <= self.high:
            return "not shown"
        if better is None:
            return "different"
        return "better" if (self.difference > 0) == (better == "higher") else "worse"


def compare(baseline: Sequence[float], others: Sequence[Sequence[float]], *, seed: int = 0) -> list[Comparison]:
    """Compare strategies with a baseline.

    Args:
        baseline: one value per sample.
        others: for each strategy the values of the same samples, in the same order.
        seed: seed of the resampling.

    Examples:
        >>> (comparison,) = compare([0.0] * 20, [[1.0] * 9 + [0.0] * 11])
        >>> comparison.conclusion("higher"), comparison.test, round(comparison.p, 4)
        ('better', 'McNemar, exact', 0.0039)
    """
    base = np.asarray(baseline, float)
    values = [np.asarray(other, float) for other in others]
    tests = [_test(base, other, seed) for other in values]
    adjusted = holm([p for _, p in tests])
    comparisons = []
    for other, (name, p), corrected in zip(values, tests, adjusted, strict=True):
        interval = bootstrap_interval(other - base, seed=seed)
        comparisons.append(
            Comparison(
                samples=len(base),
                difference=interval.mean,
                low=interval.low,
                high=interval.high,
                p=p,
                adjusted=corrected,
                up=int((other > base).sum()),
                down=int((other < base).sum()),
                test=name,
            )
        )
    return comparisons


def _test(base: Numbers, other: Numbers, seed: int) -> tuple[str, float]:
    """Return the name of the test that suits the values, and its p-value."""
    if set(np.unique(np.concatenate([base, other]))) <= {0.0, 1.0}:
        return "McNemar, exact", mcnemar(int((other > base).sum()), int((other < base).sum()))
    return "sign flips", sign_flips(other - base, seed)


def bootstrap_interval(values: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0) -> Interval:
    """Return a mean and its 95 % bootstrap interval.

    The interval is BCa (Efron 1987) from `RESAMPLES` resamples. Where BCa is undefined, because all resampled means
    lie on one side of the mean, it is the percentile interval of the same resamples.

    Args:
        values: one value per item, such as the paired difference of two strategies on a sample.
        weights: one weight per item; the mean is then ``sum(values) / sum(weights)``, and items are resampled
            together with their weights. None gives every item the weight 1.
        seed: seed of the resampling.

    Returns:
        The interval; a single point if there is one item or if no item deviates from the mean.

    Examples:
        >>> bootstrap_interval([1.0, 1.0, 1.0])
        Interval(mean=1.0, low=1.0, high=1.0)
        >>> mean, low, high = bootstrap_interval([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
        >>> low < mean < high
        True
    """
    numbers = np.asarray(values, float)
    shares = np.ones_like(numbers) if weights is None else np.asarray(weights, float)
    mean = float(numbers.mean()) if weights is None else float(numbers.sum() / shares.sum())
    if len(numbers) < 2 or np.allclose(numbers, mean * shares, rtol=0, atol=1e-12 * np.abs(numbers).max()):
        return Interval(mean, mean, mean)
    data = (numbers,) if weights is None else (numbers, shares)
    bounds = _bootstrap(data, "BCa", seed)
    if not np.isfinite(bounds).all():
        bounds = _bootstrap(data, "percentile", seed)
    return Interval(mean, *bounds)


def _bootstrap(data: tuple[Numbers, ...], method: Literal["BCa", "percentile"], seed: int) -> tuple[float, float]:
    """Return the bounds of a bootstrap interval of the mean, or of the ratio of two sums."""
    statistic: Any = np.mean if len(data) == 1 else _ratio_of_sums
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # the caller tests for nan
        interval = stats.bootstrap(
            data,
            statistic,
            n_resamples=RESAMPLES,
            batch=max(1, BATCH_ELEMENTS // len(data[0])),
            vectorized=True,
            paired=len(data) > 1,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def _ratio_of_sums(values: Numbers, weights: Numbers, axis: int = -1) -> Numbers:
    """Return ``sum(values) / sum(weights)`` along an axis."""
    ratio: Numbers = values.sum(axis=axis) / weights.sum(axis=axis)
    return ratio


def mcnemar(gained: int, lost: int) -> float:
    """Return the p-value of McNemar's exact test.

    Args:
        gained: samples that only the strategy has right.
        lost: samples that only the baseline has right.

    Examples:
        >>> mcnemar(5, 0)
        0.0625
    """
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flips(differences: Numbers, seed: int = 0) -> float:
    """Return the p-value of a permutation test that flips the signs of paired differences.

    All combinations of signs are tried if there are at most `RESAMPLES`, else a random sample of them.

    Examples:
        >>> sign_flips(np.array([0.5, 0.1, 0.3]))
        0.25
    """
    if not differences.any():
        return 1.0
    result = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(seed)
    )
    return float(result.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values after Holm's correction (1979), in the order of the arguments and at most 1, by statsmodels.

    Examples:
        >>> holm([0.01, 0.5])
        [0.02, 0.5]
    """
    return [float(p) for p in multipletests(ps, method="holm")[1]] if len(ps) else []
