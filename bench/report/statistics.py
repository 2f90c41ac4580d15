"""Is a difference between two strategies more than chance? Paired, over samples, corrected for how many are compared.

Both strategies answer the same samples, so it is the differences that are resampled: a bootstrap interval of their
mean (Efron 1987, BCa), McNemar's exact test where each sample is right or wrong, else a test that flips the signs
of the differences. Holm's correction (1979) is over the strategies that are compared with one baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

LEVEL = 0.05
RESAMPLES = 9999
Conclusion = Literal["better", "worse", "not shown", "different"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One strategy beside the baseline on the same samples.

    Attributes:
        samples: how many pairs.
        difference: mean of strategy less baseline.
        low, high: 95 % interval of it, by bootstrap over samples.
        p: probability of a difference as large by chance, two-sided, before correction.
        adjusted: the same after Holm's correction over strategies.
        up, down: samples on which the strategy is above and below the baseline.
        test: what p is from.
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
        """What can be called: a difference only where test and interval both say so, after correction."""
        if self.adjusted >= LEVEL or self.low <= 0 <= self.high:
            return "not shown"
        if better is None:
            return "different"
        return "better" if (self.difference > 0) == (better == "higher") else "worse"


def compare(baseline: Sequence[float], others: Sequence[Sequence[float]], *, seed: int = 0) -> list[Comparison]:
    """Compare strategies with a baseline.

    Args:
        baseline: a value for each sample.
        others: for each strategy, values of the same samples in the same order.
        seed: of the resampling.
    """
    raw = [_paired(np.asarray(baseline, float), np.asarray(other, float), seed) for other in others]
    adjusted = holm([p for *_, p, _ in raw])
    return [
        Comparison(
            samples=len(d),
            difference=float(d.mean()),
            low=low,
            high=high,
            p=p,
            adjusted=corrected,
            up=int((d > 0).sum()),
            down=int((d < 0).sum()),
            test=test,
        )
        for (d, low, high, p, test), corrected in zip(raw, adjusted, strict=True)
    ]


def _paired(base: np.ndarray, other: np.ndarray, seed: int) -> tuple[np.ndarray, float, float, float, str]:
    """Differences, their interval, p and the test."""
    d = other - base
    low, high = interval(d, seed)
    if set(np.unique(np.concatenate([base, other]))) <= {0.0, 1.0}:
        return d, low, high, mcnemar(int((d > 0).sum()), int((d < 0).sum())), "McNemar, exact"
    return d, low, high, sign_flips(d, seed), "sign flips"


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean; a single point where nothing varies or there is but one value."""
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    rng = np.random.default_rng(seed)
    found = stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=rng).confidence_interval
    if not np.isfinite([found.low, found.high]).all():
        rng = np.random.default_rng(seed)
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng
        ).confidence_interval
    return float(found.low), float(found.high)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test: the probability that a fair coin shares out gains and losses as unevenly."""
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flips(differences: np.ndarray, seed: int = 0) -> float:
    """Probability that random signs of the differences give a mean as far from 0; all of them where they are few."""
    if not differences.any():
        return 1.0
    found = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(seed)
    )
    return float(found.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for all of them being looked at (Holm 1979), in the order given, at most 1."""
    order = np.argsort(ps, kind="stable")
    scaled = [min(1.0, ps[place] * (len(ps) - rank)) for rank, place in enumerate(order)]
    found = np.empty(len(ps))
    found[order] = np.maximum.accumulate(scaled) if scaled else []
    return [float(p) for p in found]
