"""Reports of a run: summaries, paired statistics, tables, plots and a page."""

from __future__ import annotations

from logitkit.bench.report.answers import answers
from logitkit.bench.report.cells import Cell
from logitkit.bench.report.design import design
from logitkit.bench.report.intervals import (
    Interval,
    bootstrap_interval,
    mean_interval,
    paired_interval,
    proportion_interval,
)
from logitkit.bench.report.page import page
from logitkit.bench.report.power import Spread
from logitkit.bench.report.statistics import Comparison, compare, holm, mcnemar, shown_better, sign_flips
from logitkit.bench.report.summary import StrategyRow, Summary, TaskTable, summarise
from logitkit.bench.report.tables import markdown, show

__all__ = [
    "Cell",
    "Comparison",
    "Interval",
    "Spread",
    "StrategyRow",
    "Summary",
    "TaskTable",
    "answers",
    "bootstrap_interval",
    "compare",
    "design",
    "holm",
    "markdown",
    "mcnemar",
    "mean_interval",
    "page",
    "paired_interval",
    "proportion_interval",
    "show",
    "shown_better",
    "sign_flips",
    "summarise",
]
