"""Sentences about the differences that a run shows."""

from __future__ import annotations

from logitkit.bench.report.summary import StrategyRow, Summary, TaskTable
from logitkit.bench.report.wording import agreeing, counted, difference_text, p_text
from logitkit.bench.tasks.task import Metric


def conclusions(summary: Summary) -> list[str]:
    """Return one sentence for each difference that is shown, and one for all others."""
    sentences, not_shown = [], 0
    for table in summary.tables:
        for metric in table.metrics:
            for row in table.rows:
                cell = row.cells[metric.name]
                if cell.conclusion in ("better", "worse"):
                    sentences.append(_sentence(summary, table, row, metric))
                elif cell.conclusion == "not shown" and metric.better is not None:
                    not_shown += 1
    if not_shown:
        which = f"{agreeing(not_shown, 'comparison')} {agreeing(not_shown, 'shows')} no difference beyond chance."
        sentences.append(f"{not_shown} {'other ' if sentences else ''}{which}")
    return sentences


def _sentence(summary: Summary, table: TaskTable, row: StrategyRow, metric: Metric) -> str:
    """Return the sentence about a shown difference."""
    cell = row.cells[metric.name]
    what = f"{row.chain} is {cell.conclusion} than {summary.run.compared_with} on {table.task} ({table.model})"
    assert cell.comparison is not None
    paired = counted(cell.comparison.samples, "sample")
    mark = "" if not summary.run.hypotheses or _is_registered(summary, table, row, metric) else " (exploratory)"
    return f"{what}: {metric.name} {difference_text(metric, cell)}, p {p_text(cell)}, {paired}{mark}."


def _is_registered(summary: Summary, table: TaskTable, row: StrategyRow, metric: Metric) -> bool:
    """Return whether a comparison with the baseline is a hypothesis that was registered."""
    place = (table.model, table.task, row.chain, metric.name, summary.run.compared_with)
    return any(
        found.registered
        and place
        == (
            found.model,
            found.hypothesis.task,
            found.hypothesis.chain,
            found.metric.name,
            found.hypothesis.against or summary.run.compared_with,
        )
        for found in summary.findings
    )
