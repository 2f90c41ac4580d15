"""Reports of a run: summaries, paired statistics, tables, plots and a page."""

from __future__ import annotations

from logitkit.bench.report.page import page
from logitkit.bench.report.statistics import (
    Comparison,
    Interval,
    bootstrap_interval,
    compare,
    holm,
    mcnemar,
    sign_flips,
)
from logitkit.bench.report.summary import Cell, StrategyRow, Summary, TaskTable, summarise
from logitkit.bench.report.tables import markdown, show

__all__ = [
    "Cell",
    "Comparison",
    "Interval",
    "StrategyRow",
    "Summary",
    "TaskTable",
    "bootstrap_interval",
    "compare",
    "holm",
    "markdown",
    "mcnemar",
    "page",
    "show",
    "sign_flips",
    "summarise",
]
