"""Intervals at 95 % of means, of proportions, and of differences of paired proportions.

===============================  =====================================================================
quantity                         interval
===============================  =====================================================================
mean of numbers                  bootstrap, BCa (Efron 1987): `bootstrap_interval`
proportion of samples            score interval of Wilson (1927): `proportion_interval`
difference of paired numbers     bootstrap of the differences: `bootstrap_interval`
difference of paired proportions score interval of Tango (Statistics in Medicine 17, 1998): `paired_interval`
===============================  =====================================================================

The two score intervals are never a point. With 10 samples of which all are right, Wilson's interval is 0.72 to 1. If
two strategies agree on all of 10 samples, Tango's interval of their difference is -0.28 to 0.28. A bootstrap would
give a point in both cases, because every resample is the same.

A mean of numbers without an upper bound, such as a loss, has no interval if all samples are equal: no method tells how
large a value is that was never seen. Its interval is then a point, and the reports write no interval.
`bootstrap_interval` is the only bootstrap of the benchmark and of the studies.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitkit.bench.report.packages import optimize, proportion_confint, stats
from logitkit.errors import ParameterError

LEVEL = 0.05  # one minus the confidence of an interval, and the significance level after correction
RESAMPLES = 9999
BATCH_ELEMENTS = 2**24  # resampled values held in memory at once

Numbers = NDArray[np.float64]


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


def mean_interval(values: ArrayLike, *, share: bool) -> Interval:
    """Return a mean and the 95 % interval that suits the values.

    Args:
        values: one value per sample.
        share: the values lie between 0 and 1, as for a metric that is right or wrong.

    Returns:
        For shares that are all 0 or 1, Wilson's interval. For shares that are all equal, as when every sample has one
        right answer of two, Wilson's interval for their mean: it is then too wide rather than too narrow, because no
        values between 0 and 1 vary more than zeros and ones with the same mean. Otherwise the bootstrap interval.

    Examples:
        >>> mean, low, high = mean_interval([1.0] * 10, share=True)
        >>> f"{mean:.2f} [{low:.2f}, {high:.2f}]"
        '1.00 [0.72, 1.00]'
    """
    numbers = np.asarray(values, float)
    if share and _within_unit(numbers) and (is_binary(numbers) or np.ptp(numbers) == 0):
        return proportion_interval(float(numbers.sum()), len(numbers))
    return bootstrap_interval(numbers)


def difference_interval(base: ArrayLike, other: ArrayLike, *, share: bool, seed: int = 0) -> Interval:
    """Return the mean of paired differences, ``other`` minus ``base``, and the 95 % interval that suits the values.

    Args:
        base, other: one value per sample, in the same order.
        share: the values lie between 0 and 1. Values that are all 0 or 1, and not all equal, count as shares too.
        seed: seed of the resampling.

    Returns:
        Tango's interval for values that are all 0 or 1, and for shares whose difference is the same on every sample.
        Otherwise the bootstrap interval of the differences.

    Examples:
        >>> mean, low, high = difference_interval([0.0] * 10, [0.0] * 10, share=True)
        >>> f"{mean:.2f} [{low:.2f}, {high:.2f}]"
        '0.00 [-0.28, 0.28]'
    """
    first, second = np.asarray(base, float), np.asarray(other, float)
    both, differences = np.concatenate([first, second]), second - first
    share = share or (is_binary(both) and np.ptp(both) > 0)
    if share and _within_unit(both) and (is_binary(both) or np.ptp(differences) == 0):
        return paired_interval(float(differences.clip(0).sum()), float(-differences.clip(max=0).sum()), len(first))
    return bootstrap_interval(differences, seed=seed)


def is_binary(values: ArrayLike) -> bool:
    """Return whether every value is 0 or 1.

    Examples:
        >>> is_binary([0.0, 1.0]), is_binary([0.5])
        (True, False)
    """
    return bool(np.isin(values, (0.0, 1.0)).all())


def _within_unit(values: Numbers) -> bool:
    """Return whether there are values and all lie between 0 and 1."""
    return len(values) > 0 and bool((values >= 0).all() and (values <= 1).all())


def proportion_interval(successes: float, samples: int) -> Interval:
    """Return a proportion and its 95 % score interval (Wilson 1927).

    Args:
        successes: number of samples that are right; the sum of the shares if samples can be right in part.
        samples: number of samples, at least 1.

    Examples:
        >>> mean, low, high = proportion_interval(0, 10)
        >>> f"{mean:.2f} [{low:.2f}, {high:.2f}]"
        '0.00 [0.00, 0.28]'
    """
    mean = successes / samples
    low, high = proportion_confint(successes, samples, alpha=LEVEL, method="wilson")
    return Interval(mean, min(float(low), mean), max(float(high), mean))  # rounding must not exclude the mean


def paired_interval(gained: float, lost: float, samples: int) -> Interval:
    """Return the difference of two paired proportions and its 95 % score interval (Tango 1998).

    The interval holds the differences that McNemar's statistic, generalised to a difference other than 0, does not
    reject. It depends on the samples that differ and on their number, and not on how many samples both have right.
    Without differences it is ``0`` plus or minus ``z**2 / (samples + z**2)`` with ``z = 1.96``.

    Args:
        gained: samples that only the second strategy has right.
        lost: samples that only the first strategy has right.
        samples: number of pairs, at least 1.

    Examples:
        >>> mean, low, high = paired_interval(7, 1, 21)
        >>> f"{mean:.3f} [{low:.3f}, {high:.3f}]"
        '0.286 [0.026, 0.517]'
    """
    mean = (gained - lost) / samples
    return Interval(mean, _tango_bound(gained, lost, samples), -_tango_bound(lost, gained, samples))


def _tango_bound(gained: float, lost: float, samples: int) -> float:
    """Return the lower bound of Tango's interval: the difference at which the score statistic is 1.96."""
    z = stats.norm.isf(LEVEL / 2)

    def excess(difference: float) -> float:
        """Return the numerator of the statistic minus 1.96 times its denominator."""
        slope = (2 * samples + lost - gained) * difference - gained - lost
        root = math.sqrt(max(0.0, slope**2 + 8 * samples * lost * difference * (1 - difference)))
        only_first = (root - slope) / (4 * samples)  # its probability, most likely if the difference is true
        variance = 2 * only_first + difference * (1 - difference)
        return gained - lost - samples * difference - float(z) * math.sqrt(max(0.0, samples * variance))

    # The statistic is also 0 / 0 at the mean if no sample differs, so the search ends just below the mean.
    mean, below = (gained - lost) / samples, (gained - lost) / samples - 1e-9
    if below <= -1 or excess(-1.0) <= 0:
        return -1.0
    return min(mean, float(optimize.brentq(excess, -1.0, below, xtol=1e-15)))


def bootstrap_interval(values: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0) -> Interval:
    """Return a mean and its 95 % bootstrap interval.

    The interval is BCa (Efron 1987) from `RESAMPLES` resamples. Where BCa is undefined, because all resampled means
    lie on one side of the mean, it is the percentile interval of the same resamples.
    A resample whose weights sum to 0 has no mean and is left out, so the interval is that of the resamples with a
    mean. If no weight is negative, a resample is left out with a probability below 37 %, most often where one
    item alone has a weight. Few items with a weight give too narrow an interval, as few items do. Weights of both
    signs can have a sum near 0, which makes the interval wide.

    Args:
        values: one value per item, such as the paired difference of two strategies on a sample.
        weights: one weight per item; the mean is then ``sum(values) / sum(weights)``, and items are resampled
            together with their weights. None gives every item the weight 1.
        seed: seed of the resampling.

    Returns:
        The interval; a single point if there is one item or if no item deviates from the mean.

    Raises:
        ParameterError: the weights sum to 0.

    Examples:
        >>> bootstrap_interval([1.0, 1.0, 1.0])
        Interval(mean=1.0, low=1.0, high=1.0)
        >>> mean, low, high = bootstrap_interval([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
        >>> low < mean < high
        True
        >>> bootstrap_interval([0.0, 1.0, 0.0], [0.0, 1.0, 1.0])
        Interval(mean=0.5, low=0.0, high=1.0)
    """
    numbers = np.asarray(values, float)
    shares = np.ones_like(numbers) if weights is None else np.asarray(weights, float)
    if weights is not None and not shares.sum():
        raise ParameterError("bootstrap_interval", "the sum of the weights", "a number other than 0", 0.0)
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
    batch = max(1, BATCH_ELEMENTS // len(data[0]))
    settings = {"batch": batch, "vectorized": True, "paired": len(data) > 1, "method": method}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # the caller tests for nan
        rng = np.random.default_rng(seed)
        result = stats.bootstrap(data, statistic, n_resamples=RESAMPLES, rng=rng, **settings)
        has_value = np.isfinite(result.bootstrap_distribution)
        if not has_value.all():
            result.bootstrap_distribution = result.bootstrap_distribution[has_value]
            result = stats.bootstrap(data, statistic, n_resamples=0, bootstrap_result=result, **settings)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _ratio_of_sums(values: Numbers, weights: Numbers, axis: int = -1) -> Numbers:
    """Return ``sum(values) / sum(weights)`` along an axis."""
    ratio: Numbers = values.sum(axis=axis) / weights.sum(axis=axis)
    return ratio
