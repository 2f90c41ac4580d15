"""Numbers, intervals and counts as the reports write them."""

from __future__ import annotations

import math

from logitkit.bench.report.cells import Cell
from logitkit.bench.tasks.task import Metric

FUSED = (
    "Forwards count passes of a model: a second prompt that is fused is a further row of the same pass and adds none, "
    "but it takes time."
)  # below every figure of forwards
ARROWS = {"higher": "↑", "lower": "↓", None: ""}
PLURALS = {
    "strategy": "strategies",
    "hypothesis": "hypotheses",
    "this": "these",
    "is": "are",
    "shows": "show",
    "has": "have",
}


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the singular for 1.

    Examples:
        >>> counted(1, "sample"), counted(2, "sample"), counted(0, "strategy")
        ('1 sample', '2 samples', '0 strategies')
    """
    return f"{count} {agreeing(count, noun)}"


def agreeing(count: int, word: str) -> str:
    """Return a noun or verb in the number that a count asks for.

    Examples:
        >>> agreeing(1, "shows"), agreeing(3, "shows"), agreeing(3, "token")
        ('shows', 'show', 'tokens')
    """
    return word if count == 1 else PLURALS.get(word, f"{word}s")


def number(value: float) -> str:
    """Return a number with three decimals, with one decimal from 100 on.

    Examples:
        >>> number(1.23456), number(123.456)
        ('1.235', '123.5')
    """
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def heading(metric: Metric) -> str:
    """Return a metric's name, unit and direction.

    Examples:
        >>> heading(Metric(name="loss", better="lower", unit="nats/word"))
        'loss, nats/word ↓'
    """
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.name}{unit} {ARROWS[metric.better]}".strip()


def mean_text(cell: Cell) -> str:
    """Return a mean with its interval; the mean alone if the samples show no variation.

    Examples:
        >>> mean_text(Cell(value=0.5, low=0.2, high=0.8, samples=9, infinite=0, comparison=None, conclusion=""))
        '0.500 [0.200, 0.800]'
    """
    if math.isinf(cell.value):
        return f"infinite on {cell.infinite} of {counted(cell.samples, 'sample')}"
    if cell.low == cell.high:
        return number(cell.value)
    return f"{number(cell.value)} [{number(cell.low)}, {number(cell.high)}]"


def difference_text(metric: Metric, cell: Cell) -> str:
    """Return the difference to the baseline with its interval, as a ratio for exponent metrics.

    Differences that are the same on every sample have no interval, unless the values are shares; the text says so.
    """
    comparison = cell.comparison
    assert comparison is not None
    if metric.exponent:
        low, high = math.exp(comparison.low), math.exp(comparison.high)
        text, bounds = f"×{number(math.exp(comparison.difference))}", f"[{number(low)}, {number(high)}]"
    else:
        text, bounds = f"{comparison.difference:+.3f}", f"[{comparison.low:+.3f}, {comparison.high:+.3f}]"
    if comparison.low < comparison.high:
        return f"{text} {bounds}"
    if comparison.samples == 1:
        return f"{text} (1 sample)"
    which = "equal" if comparison.up == comparison.down == 0 else "the same"
    return f"{text} ({which} on all {comparison.samples})"


def p_text(cell: Cell) -> str:
    """Return the corrected p-value of a comparison."""
    assert cell.comparison is not None
    p = cell.comparison.adjusted
    return "<0.001" if p < 0.001 else f"{p:.3f}"
