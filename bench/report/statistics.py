"""Paired statistics of two strategies on the same samples: intervals, tests and corrections.

Both strategies answer the same samples, and `compare` looks at the differences of the samples. It reports an interval
of the mean difference (`logitkit.bench.report.intervals`), a p-value, and the p-value after Holm's correction (1979)
over all strategies that are compared with the baseline. The test is McNemar's exact test if every sample is right or
wrong, and a test that flips the signs of the differences otherwise. `shown_better` compares every strategy with every
other and corrects over all pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from logitkit.bench.report.intervals import (
    BATCH_ELEMENTS,
    LEVEL,
    RESAMPLES,
    Numbers,
    difference_interval,
    is_binary,
)
from logitkit.bench.report.packages import stats

FINE, FINE_RESAMPLES = 0.002, 49_999  # see `sign_flips`

Conclusion = Literal["better", "worse", "not shown", "different"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One strategy compared with the baseline on the same samples.

    Attributes:
        samples: number of pairs.
        difference: mean of strategy minus baseline.
        low, high: 95 % interval of the difference, by `difference_interval`.
        p: two-sided p-value of the hypothesis that there is no difference, before correction.
        adjusted: the p-value after Holm's correction.
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


def compare(
    baseline: Sequence[float], others: Sequence[Sequence[float]], *, share: bool = False, seed: int = 0
) -> list[Comparison]:
    """Compare strategies with a baseline.

    Args:
        baseline: one value per sample.
        others: for each strategy the values of the same samples, in the same order.
        share: the values lie between 0 and 1. Without it, this holds for values that are all 0 or 1 and not all equal.
        seed: seed of the resampling.

    Examples:
        >>> (comparison,) = compare([0.0] * 20, [[1.0] * 9 + [0.0] * 11])
        >>> comparison.conclusion("higher"), comparison.test, round(comparison.p, 4)
        ('better', 'McNemar, exact', 0.0039)
    """
    return compare_pairs([(baseline, other) for other in others], share=share, seed=seed)


def compare_pairs(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], *, share: bool = False, seed: int = 0
) -> list[Comparison]:
    """Compare pairs of the baseline and a strategy that may have different samples, and correct over all pairs.

    Args:
        pairs: for each strategy the baseline's values and its own, on the samples that both have, in one order.
        share: as in `compare`.
        seed: seed of the resampling.
    """
    values = [(np.asarray(base, float), np.asarray(other, float)) for base, other in pairs]
    tests = [_test(base, other, seed) for base, other in values]
    adjusted = holm([p for _, p in tests])
    comparisons = []
    for (base, other), (name, p), corrected in zip(values, tests, adjusted, strict=True):
        interval = difference_interval(base, other, share=share, seed=seed)
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


def shown_better(
    values: Mapping[str, Mapping[str, float]], better: str, *, share: bool = False
) -> dict[str, tuple[str, ...]]:
    """Return for each strategy the strategies that are shown to be better.

    Every pair is compared on the samples that both have. A strategy is shown to be better if the p-value, after Holm's
    correction over all pairs, is below 0.05 and the interval of the difference excludes 0.

    Args:
        values: for each strategy the value of each sample, all finite.
        better: whether ``higher`` or ``lower`` values are better.
        share: the values lie between 0 and 1.

    Examples:
        >>> right, wrong = {str(n): 1.0 for n in range(20)}, {str(n): 0.0 for n in range(20)}
        >>> shown_better({"a": right, "b": wrong, "c": {**wrong, "0": 1.0}}, "higher")
        {'a': (), 'b': ('a',), 'c': ('a',)}
    """
    pairs = [
        (first, second, _shared(values[first], values[second]))
        for first, second in itertools.combinations(values, 2)
        if values[first].keys() & values[second].keys()
    ]
    adjusted = holm([_test(*shared, seed=0)[1] for _, _, shared in pairs])
    winners: dict[str, list[str]] = {name: [] for name in values}
    for (first, second, shared), p in zip(pairs, adjusted, strict=True):
        if p >= LEVEL:
            continue
        mean, low, high = difference_interval(*shared, share=share)
        if low > 0 or high < 0:
            ahead, behind = (second, first) if (mean > 0) == (better == "higher") else (first, second)
            winners[behind].append(ahead)
    return {name: tuple(names) for name, names in winners.items()}


def _shared(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[Numbers, Numbers]:
    """Return the values of the samples that both strategies have, in one order."""
    common = [key for key in first if key in second]
    return np.array([first[key] for key in common], float), np.array([second[key] for key in common], float)


def _test(base: Numbers, other: Numbers, seed: int) -> tuple[str, float]:
    """Return the name of the test that suits the values, and its p-value."""
    if is_binary(np.concatenate([base, other])):
        return "McNemar, exact", mcnemar(int((other > base).sum()), int((other < base).sum()))
    return "sign flips", sign_flips(other - base, seed)


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

    All combinations of signs are tried if there are at most `RESAMPLES`, else a random sample of them. A p-value below
    `FINE` is computed once more from `FINE_RESAMPLES` other samples: the smallest p-value of the first sample is
    0.0002, which a correction over more than 250 comparisons raises above 0.05.

    Examples:
        >>> sign_flips(np.array([0.5, 0.1, 0.3]))
        0.25
    """
    if len(differences) < 2 or not differences.any():  # one difference is as extreme as its opposite
        return 1.0
    result = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(seed)
    )
    p = float(result.pvalue)
    return _fine_sign_flips(differences, seed) if p < FINE and 2 ** len(differences) > RESAMPLES else p


def _fine_sign_flips(differences: Numbers, seed: int) -> float:
    """Return the p-value of `sign_flips` from more random signs; the signs as they are count as one of them."""
    rng = np.random.default_rng([seed, FINE_RESAMPLES])
    limit = abs(differences.sum()) * (1 - 1e-12)  # rounding must not hide a tie
    rows = max(1, BATCH_ELEMENTS // len(differences))
    extreme = 0
    for start in range(0, FINE_RESAMPLES, rows):
        size = (min(rows, FINE_RESAMPLES - start), len(differences))
        signs = 2.0 * rng.integers(0, 2, size, dtype=np.int8) - 1
        extreme += int((np.abs(signs @ differences) >= limit).sum())
    return (extreme + 1) / (FINE_RESAMPLES + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values after Holm's correction (1979), in the order of the arguments and at most 1.

    The function ``multipletests`` of statsmodels gives the same values, but collects garbage at every call, which
    takes half a second in a process that holds models.

    Examples:
        >>> holm([0.01, 0.5])
        [0.02, 0.5]
    """
    values = np.asarray(ps, float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return [float(p) for p in adjusted]
