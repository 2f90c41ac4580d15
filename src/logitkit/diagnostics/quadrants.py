"""Quadrants of the tokens of a text: the entropy of a model by its divergence from a larger one.

TIP, arXiv:2604.14084, sorts the tokens of a student in this way. Those of low entropy and high divergence, of which
the student is sure and where the teacher disagrees, teach much and are missed by a rule that looks at entropy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NAMES = ("sure, alike", "sure and wrong", "unsure, alike", "unsure, apart")
RESAMPLES = 2000
BLOCK = 32  # tokens of a block, where blocks are resampled
FEWEST_UNITS = 8  # texts or blocks below which no interval is given
CARRIED = (0.5, 0.8, 0.95)  # shares of the divergence whose carriers are counted
Z = 1.959963984540054  # of an interval of 95 %
Numbers = NDArray[np.float64]


class Share(NamedTuple):
    """A share, 0 to 1, with the limits of its interval of 95 %; a limit is NaN where there are too few texts.

    Example:
        >>> Share(0.2, 0.1, 0.3).value
        0.2
    """

    value: float
    low: float
    high: float


class Quadrant(NamedTuple):
    """One quadrant.

    Attributes:
        name: ``sure, alike``, ``sure and wrong``, ``unsure, alike`` or ``unsure, apart``.
        tokens: number of its tokens.
        share: their share of all tokens.
        divergence: their share of the divergence of all tokens; NaN where there is none, or it is infinite.

    Example:
        >>> Quadrant("sure, alike", 3, Share(0.6, 0.4, 0.8), Share(0.1, 0.0, 0.2)).tokens
        3
    """

    name: str
    tokens: int
    share: Share
    divergence: Share


class Quadrants(NamedTuple):
    """The four quadrants of some texts.

    Attributes:
        entropy: threshold of the entropy, nats; above it the model is unsure.
        divergence: threshold of the divergence; above it the models are apart.
        quadrants: in the order of the names in `Quadrant`.
        missed: share of the tokens above the threshold of the divergence that are below that of the entropy, so that a
            router by entropy misses them; NaN without such tokens.
        units: what was drawn again for the intervals, such as ``12 texts``; empty: no intervals.

    Example:
        >>> entropy_quadrants([[0.1, 0.2, 2.0, 3.0]], [[0.0, 0.9, 0.0, 0.9]], divergence=0.5).missed.value
        0.5
    """

    entropy: float
    divergence: float
    quadrants: tuple[Quadrant, ...]
    missed: Share
    units: str


def entropy_quadrants(
    entropies: Sequence[Sequence[float]],
    divergences: Sequence[Sequence[float]],
    *,
    divergence: float,
    entropy: float | None = None,
) -> Quadrants:
    """Return the quadrants of the tokens of some texts, with intervals.

    The intervals are percentile bootstrap intervals from 2000 resamples: of the texts, or of blocks of 32 successive
    tokens where there are fewer than 8 texts. The threshold of the entropy is held fixed. Where every resample has the
    same share, as where it is 0, the interval is the score interval of Wilson with each text or block as a sample.

    Args:
        entropies: entropy of the model before each token of each text, nats.
        divergences: divergence of the models there, >= 0.
        divergence: its threshold.
        entropy: its threshold; None: the median over all tokens.

    Example:
        >>> found = entropy_quadrants([[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [0.0, 0.5]], divergence=0.2)
        >>> found.entropy, [part.tokens for part in found.quadrants]
        (1.5, [1, 1, 1, 1])
        >>> [round(part.divergence.value, 3) for part in found.quadrants]
        [0.0, 0.667, 0.0, 0.333]
    """
    every = np.concatenate([np.asarray(text, float) for text in entropies])
    limit = float(np.median(every)) if entropy is None else entropy
    units, unit_name = _units(entropies, divergences)
    placed = [2 * (np.asarray(h) > limit) + (np.asarray(d) > divergence) for h, d in units]
    counts = np.stack([np.bincount(each, minlength=4) for each in placed]).astype(float)  # [units, 4]
    weighted = [np.bincount(each, weights=d, minlength=4) for each, (_, d) in zip(placed, units, strict=True)]
    sums = np.stack(weighted).astype(float)
    weights = _weights(len(units)) if unit_name else None
    parts = tuple(
        Quadrant(
            name,
            int(counts[:, place].sum()),
            _ratio(counts[:, place], counts.sum(1), weights),
            _ratio(sums[:, place], sums.sum(1), weights),
        )
        for place, name in enumerate(NAMES)
    )
    missed = _ratio(counts[:, 1], counts[:, 1] + counts[:, 3], weights)
    return Quadrants(limit, divergence, parts, missed, unit_name)


def carriers(divergences: Sequence[float]) -> dict[float, float]:
    """Return the share of the tokens that carries a share of the divergence, the most divergent tokens first.

    Args:
        divergences: one for each token, >= 0.

    Returns:
        For 50 %, 80 % and 95 % of the sum the smallest share of tokens that reaches it; NaN where the sum is 0 or
        infinite.

    Example:
        >>> carriers([8.0, 1.0, 0.5, 0.5])
        {0.5: 0.25, 0.8: 0.25, 0.95: 0.75}
    """
    ordered = np.sort(np.asarray(divergences, float))[::-1]
    sums = ordered.cumsum()
    total = float(sums[-1])
    if not 0 < total < math.inf:
        return dict.fromkeys(CARRIED, math.nan)
    return {share: float(1 + np.searchsorted(sums, share * total * (1 - 1e-12))) / len(ordered) for share in CARRIED}


def _units(
    entropies: Sequence[Sequence[float]], divergences: Sequence[Sequence[float]]
) -> tuple[list[tuple[Numbers, Numbers]], str]:
    """Return what is drawn again, each with its entropies and divergences, and its name; no name: too few."""
    texts = [(np.asarray(h, float), np.asarray(d, float)) for h, d in zip(entropies, divergences, strict=True)]
    if len(texts) >= FEWEST_UNITS:
        return texts, f"{len(texts)} texts"
    blocks = [
        (h[begin : begin + BLOCK], d[begin : begin + BLOCK]) for h, d in texts for begin in range(0, len(h), BLOCK)
    ]
    enough = len(blocks) >= FEWEST_UNITS
    return blocks, f"{len(blocks)} blocks of {BLOCK} tokens" if enough else ""


def _weights(units: int) -> Numbers:
    """Return how often each unit is in each resample, ``[resamples, units]``."""
    return np.random.default_rng(0).multinomial(units, [1 / units] * units, size=RESAMPLES).astype(float)


def _ratio(part: Numbers, whole: Numbers, weights: Numbers | None) -> Share:
    """Return the ratio of two sums over units, and its interval.

    Args:
        part, whole: the addends of each unit, ``[units]``.
        weights: as of `_weights`; None: no interval.
    """
    total = float(whole.sum())
    if not 0 < total < math.inf:
        return Share(math.nan, math.nan, math.nan)
    value = float(part.sum()) / total
    if weights is None:
        return Share(value, math.nan, math.nan)
    below = weights @ whole
    drawn = (weights @ part)[below > 0] / below[below > 0]
    if np.ptp(drawn) < 1e-12:
        return Share(value, *_score_interval(value, int((whole > 0).sum())))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Share(value, min(float(low), value), max(float(high), value))


def _score_interval(share: float, samples: int) -> tuple[float, float]:
    """Return the limits of the score interval of a proportion (Wilson 1927)."""
    middle = (share + Z**2 / (2 * samples)) / (1 + Z**2 / samples)
    reach = Z * math.sqrt(share * (1 - share) / samples + Z**2 / (4 * samples**2)) / (1 + Z**2 / samples)
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))
