"""Deferral curves: quality of a sequence-level cascade at every deferral rate, and the area under the curve.

Source: arXiv:2404.10136, section 4. The items with the lowest scores are deferred first. Items with equal scores
are deferred in random order, and the curve is the expectation over these orders. A score without information
therefore gives the straight line of random deferral.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitkit.errors import ParameterError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DeferralArea:
    """Area under a deferral curve (AUC-DF) and that of random deferral.

    Attributes:
        area: area under the curve of the score.
        random: area of random deferral, which is the mean of both models' mean qualities.
        gain: ``area - random``.
        interval: bootstrap percentile interval of the area, over items.
        gain_interval: bootstrap percentile interval of the gain.
        level: confidence level of the intervals.

    >>> area_under_deferral_curve([1, 2], [0, 1], [1, 1]).random
    0.75
    """

    area: float
    random: float
    gain: float
    interval: tuple[float, float]
    gain_interval: tuple[float, float]
    level: float


def deferral_curve(scores: ArrayLike, small: ArrayLike, large: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return deferral rates and the mean quality of the cascade at each.

    Args:
        scores: one score an item, ``[items]``; the lowest are deferred first.
        small, large: quality of either model's output on each item, ``[items]``.

    Returns:
        The rates 0, 1/items, ... 1 and the qualities, each ``[items + 1]``.

    Raises:
        ParameterError: no items, unequal lengths, or NaN.

    >>> rates, quality = deferral_curve([-1, -4, -2, -3], [1, 0, 1, 0], [1, 1, 1, 1])
    >>> quality.tolist()
    [0.5, 0.75, 1.0, 1.0, 1.0]
    """
    s, q, p = _columns(scores, small, large)
    return np.linspace(0, 1, len(s) + 1), _curves(s[None], q[None], p[None])[0]


def area_under_deferral_curve(
    scores: ArrayLike,
    small: ArrayLike,
    large: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> DeferralArea:
    """Return the area under the deferral curve with bootstrap intervals over items.

    Args:
        scores, small, large: as in `deferral_curve`.
        resamples: number of bootstrap resamples, >= 1.
        level: confidence level of the intervals, above 0 and below 1.
        seed: of the resampling.

    Raises:
        ParameterError: as in `deferral_curve`, or a setting is outside its range.

    >>> area_under_deferral_curve([-1, -4, -2, -3], [1, 0, 1, 0], [1, 1, 1, 1]).gain
    0.125
    """
    s, q, p = _columns(scores, small, large)
    if resamples < 1 or not 0 < level < 1:
        rule = "above 0 and below 1, and at least 1"
        raise ParameterError("area_under_deferral_curve", "level and resamples", rule, (level, resamples))
    area, random = _areas(s[None], q[None], p[None])
    rows = np.random.default_rng(seed).integers(0, len(s), (resamples, len(s)))
    areas, randoms = _areas(s[rows], q[rows], p[rows])
    ends = [(1 - level) / 2, (1 + level) / 2]
    interval, gains = np.quantile(areas, ends), np.quantile(areas - randoms, ends)
    return DeferralArea(
        area=float(area[0]),
        random=float(random[0]),
        gain=float(area[0] - random[0]),
        interval=(float(interval[0]), float(interval[1])),
        gain_interval=(float(gains[0]), float(gains[1])),
        level=level,
    )


def length_bias(scores: ArrayLike, lengths: ArrayLike) -> float:
    """Return Spearman's rank correlation of scores and output lengths.

    A strongly negative value means that long outputs are deferred because they are long, as under Chow-Sum.

    Args:
        scores: one score an item, ``[items]``.
        lengths: number of tokens of each output, ``[items]``.

    Returns:
        -1 to 1; 0 where scores or lengths are all equal.

    Raises:
        ParameterError: no items, unequal lengths, or NaN.

    >>> length_bias([-1, -2, -4], [1, 2, 3])
    -1.0
    """
    s, n, _ = _columns(scores, lengths, lengths)
    if len(s) < 2 or np.ptp(s) == 0 or np.ptp(n) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(s), _ranks(n))[0, 1])


def _columns(*columns: ArrayLike) -> tuple[FloatArray, ...]:
    """Return the columns as arrays of one length, without NaN."""
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in columns)
    if arrays[0].ndim != 1 or not len(arrays[0]) or any(a.shape != arrays[0].shape for a in arrays):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ParameterError("deferral_curve", "scores and qualities", "of one length, at least 1", shapes)
    if any(np.isnan(a).any() for a in arrays):
        raise ParameterError("deferral_curve", "scores and qualities", "numbers", "NaN")
    return arrays


def _curves(scores: FloatArray, small: FloatArray, large: FloatArray) -> FloatArray:
    """Return the mean quality when the k lowest are deferred, k = 0 to n, for each resample, ``[resamples, n + 1]``."""
    order = np.argsort(scores, axis=-1, kind="stable")
    score, gain = (np.take_along_axis(a, order, axis=-1) for a in (scores, large - small))
    # Items with equal scores form a group; deferring one of them gains the group's mean in expectation.
    starts = np.concatenate([np.ones((len(score), 1), bool), score[:, 1:] != score[:, :-1]], axis=1)
    group = np.cumsum(starts, axis=-1) - 1 + np.arange(len(score))[:, None] * score.shape[1]
    total = np.bincount(group.ravel(), gain.ravel(), score.size)
    count = np.bincount(group.ravel(), minlength=score.size)
    shared = (total / np.maximum(count, 1))[group]
    gained = np.concatenate([np.zeros((len(score), 1)), np.cumsum(shared, axis=-1)], axis=1)
    curves: FloatArray = small.mean(-1, keepdims=True) + gained / score.shape[1]
    return curves


def _areas(scores: FloatArray, small: FloatArray, large: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the area under each curve, by the trapezoid rule, and under random deferral, each ``[resamples]``."""
    curve = _curves(scores, small, large)
    areas: FloatArray = ((curve[:, 1:] + curve[:, :-1]) / 2).mean(-1)
    randoms: FloatArray = (small.mean(-1) + large.mean(-1)) / 2
    return areas, randoms


def _ranks(values: FloatArray) -> FloatArray:
    """Return ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks
