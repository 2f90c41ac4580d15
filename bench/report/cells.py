"""One metric of the strategies on one task: means, intervals and comparisons with the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from logitkit.bench.report.intervals import Interval, mean_interval
from logitkit.bench.report.statistics import Comparison, Conclusion, compare_pairs, holm
from logitkit.bench.tasks.task import Metric


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of one strategy on one task of one model.

    Attributes:
        value: mean over samples, exp of the mean for exponent metrics; infinite if any sample is infinite.
        low, high: 95 % interval of ``value``, by `mean_interval`; equal if the samples show no variation.
        samples: number of samples.
        infinite: number of samples whose metric is infinite; such a metric is not compared.
        comparison: comparison with the baseline. None for the baseline, and if one of the two is infinite.
        conclusion: conclusion of the comparison; empty without a comparison.

    Examples:
        >>> Cell(value=0.5, low=0.2, high=0.8, samples=10, infinite=0, comparison=None, conclusion="").samples
        10
    """

    value: float
    low: float
    high: float
    samples: int
    infinite: int
    comparison: Comparison | None
    conclusion: Conclusion | str


def is_share(metric: Metric) -> bool:
    """Return whether the values of a metric are shares, if they lie between 0 and 1: it has no unit and no exponent.

    Examples:
        >>> [is_share(Metric(name="a", better="higher", unit=unit)) for unit in ("", "nats")]
        [True, False]
    """
    return metric.binary or not (metric.unit or metric.exponent)


def cells_of_metric(metric: Metric, values: Mapping[str, Mapping[str, float | None]], baseline: str) -> dict[str, Cell]:
    """Return one metric of every strategy, compared on the samples that the strategy shares with the baseline.

    Args:
        metric: the metric.
        values: for each strategy the value of each sample; None for an infinite value.
        baseline: the strategy with which the others are compared.

    Examples:
        >>> values = {"plain": {"0": 0.0, "1": 1.0}, "cfg": {"0": 0.0, "1": None}}
        >>> cells = cells_of_metric(Metric(name="loss", better="lower", unit="nats"), values, "plain")
        >>> cells["plain"].value, cells["cfg"].value, cells["cfg"].infinite
        (0.5, inf, 1)
    """
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for chain, each in values.items():
        if chain == baseline or baseline not in values:
            continue
        shared = [(values[baseline][key], value) for key, value in each.items() if key in values[baseline]]
        finite = [(base, other) for base, other in shared if base is not None and other is not None]
        if shared and len(finite) == len(shared):
            pairs[chain] = [base for base, _ in finite], [other for _, other in finite]
    compared = dict(zip(pairs, compare_pairs(list(pairs.values()), share=is_share(metric)), strict=True))
    shown = math.exp if metric.exponent else float
    cells = {}
    for chain, each in values.items():
        numbers = [value for value in each.values() if value is not None]
        infinite = len(each) - len(numbers)
        bounds = Interval(math.inf, math.inf, math.inf)
        if numbers and not infinite:
            bounds = mean_interval(numbers, share=is_share(metric))
        comparison = compared.get(chain)
        cells[chain] = Cell(
            value=shown(bounds.mean),
            low=shown(bounds.low),
            high=shown(bounds.high),
            samples=len(each),
            infinite=infinite,
            comparison=comparison,
            conclusion=comparison.conclusion(metric.better) if comparison else "",
        )
    return cells


def corrected_together(cells: Sequence[tuple[Metric, Cell]], *, further: int = 0) -> list[Cell]:
    """Return cells whose p-values are corrected over all of them by Holm's method, with the conclusions that follow.

    Args:
        cells: each with its metric; cells without a comparison stay as they are.
        further: comparisons that were made elsewhere and count too; each is taken to have shown nothing.

    Examples:
        >>> metric = Metric(name="loss", better="lower", unit="nats")
        >>> values = {"plain": {str(n): 1.0 for n in range(9)}, "cfg": {str(n): 0.5 + n / 99 for n in range(9)}}
        >>> cell = cells_of_metric(metric, values, "plain")["cfg"]
        >>> cell.conclusion, corrected_together([(metric, cell)], further=20)[0].conclusion
        ('better', 'not shown')
    """
    ps = [cell.comparison.p for _, cell in cells if cell.comparison is not None]
    adjusted = iter(holm([*ps, *[1.0] * further]))
    corrected = []
    for metric, cell in cells:
        if cell.comparison is not None:
            comparison = replace(cell.comparison, adjusted=next(adjusted))
            cell = replace(cell, comparison=comparison, conclusion=comparison.conclusion(metric.better))
        corrected.append(cell)
    return corrected
