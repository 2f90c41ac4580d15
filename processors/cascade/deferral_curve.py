"""What a deferral score is worth: quality of the cascade at every rate of deferral, and the area below.

arXiv:2404.10136, section 4. The items with the lowest scores are deferred first. Items with equal scores
are deferred in expectation, so a score without information draws the straight line of random deferral.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitkit.errors import ParameterError

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area under a deferral curve (AUC-DF) beside that of random deferral.

    Attributes:
        area: of the score.
        random: of random deferral: the mean of both models' mean qualities.
        gain: area - random.
        interval: bootstrap percentile interval of the area, over items.
        gain_interval: of the gain.
        level: of the intervals.
    """

    area: float
    random: float
    gain: float
    interval: tuple[float, float]
    gain_interval: tuple[float, float]
    level: float


def deferral_curve(scores: ArrayLike, small: ArrayLike, large: ArrayLike) -> tuple[Numbers, Numbers]:
    """Return the rates 0, 1/n, ... 1 and the mean quality of the cascade at each.

    Args:
        scores: one a item; the lowest are deferred first.
        small, large: quality of either model's output on each item.

    Raises:
        ParameterError: no items, unequal lengths, NaN.
    """
    s, q, p = _checked(scores, small, large)
    return np.linspace(0, 1, len(s) + 1), _curves(s[None], q[None], p[None])[0]


def area_under(
    scores: ArrayLike,
    small: ArrayLike,
    large: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Area:
    """The area under the deferral curve with bootstrap intervals; arguments as in `deferral_curve`."""
    s, q, p = _checked(scores, small, large)
    if resamples < 1 or not 0 < level < 1:
        raise ParameterError("area_under", "level", "above 0 and below 1, with a resample or more", (level, resamples))
    area, chance = _area(s[None], q[None], p[None])
    rows = np.random.default_rng(seed).integers(0, len(s), (resamples, len(s)))
    areas, chances = _area(s[rows], q[rows], p[rows])
    ends = [(1 - level) / 2, (1 + level) / 2]
    interval, gains = np.quantile(areas, ends), np.quantile(areas - chances, ends)
    return Area(
        area=float(area[0]),
        random=float(chance[0]),
        gain=float(area[0] - chance[0]),
        interval=(float(interval[0]), float(interval[1])),
        gain_interval=(float(gains[0]), float(gains[1])),
        level=level,
    )


def length_bias(scores: ArrayLike, lengths: ArrayLike) -> float:
    """Spearman's correlation of score and length, -1 to 1; 0 where either is constant.

    Strongly negative: long outputs are deferred for being long, as Chow-Sum does.
    """
    s, n, _ = _checked(scores, lengths, lengths)
    if len(s) < 2 or np.ptp(s) == 0 or np.ptp(n) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(s), _ranks(n))[0, 1])


def _checked(*columns: ArrayLike) -> tuple[Numbers, ...]:
    """The columns as arrays, having made sure that they go together."""
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in columns)
    if arrays[0].ndim != 1 or not len(arrays[0]) or any(a.shape != arrays[0].shape for a in arrays):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ParameterError("deferral_curve", "scores and qualities", "equally many, at least one", shapes)
    if any(np.isnan(a).any() for a in arrays):
        raise ParameterError("deferral_curve", "scores and qualities", "numbers", "NaN")
    return arrays


def _curves(scores: Numbers, small: Numbers, large: Numbers) -> Numbers:
    """Mean quality when the k lowest are deferred, k = 0 to n, for each resample, ``[resamples, n + 1]``."""
    order = np.argsort(scores, axis=-1, kind="stable")
    score, gain = (np.take_along_axis(a, order, axis=-1) for a in (scores, large - small))
    # Equal scores share their gain: each stands for the mean of its group.
    starts = np.concatenate([np.ones((len(score), 1), bool), score[:, 1:] != score[:, :-1]], axis=1)
    group = np.cumsum(starts, axis=-1) - 1 + np.arange(len(score))[:, None] * score.shape[1]
    total = np.bincount(group.ravel(), gain.ravel(), score.size)
    count = np.bincount(group.ravel(), minlength=score.size)
    shared = (total / np.maximum(count, 1))[group]
    gained = np.concatenate([np.zeros((len(score), 1)), np.cumsum(shared, axis=-1)], axis=1)
    curves: Numbers = small.mean(-1, keepdims=True) + gained / score.shape[1]
    return curves


def _area(scores: Numbers, small: Numbers, large: Numbers) -> tuple[Numbers, Numbers]:
    """Area under each curve, by trapezoids, and under random deferral."""
    curve = _curves(scores, small, large)
    areas: Numbers = ((curve[:, 1:] + curve[:, :-1]) / 2).mean(-1)
    chances: Numbers = (small.mean(-1) + large.mean(-1)) / 2
    return areas, chances


def _ranks(values: Numbers) -> Numbers:
    """Ranks from 0, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks
