"""Tables of a summary as text, for the reports in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.bench.report.summary import Cell, StrategyRow, Summary, TaskTable
from logitkit.bench.tasks.task import Metric

ARROWS = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of text.

    Attributes:
        title: title of the table.
        about: a sentence about the table.
        headings: the headings of the columns.
        rows: the cells of each row.
        marks: the conclusion of each row, which sets its colour in the terminal; empty for a table without.
    """

    title: str
    about: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Sequence[str] = ()


def sheets(summary: Summary) -> list[Sheet]:
    """Return every table of a summary: one for each task of each model, then the costs."""
    return [*(_task_sheet(summary, table) for table in summary.tables), *_cost_sheets(summary)]


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
        sentences.append(f"{not_shown} other comparisons show no difference beyond chance.")
    return sentences


def _sentence(summary: Summary, table: TaskTable, row: StrategyRow, metric: Metric) -> str:
    """Return the sentence about a shown difference."""
    cell = row.cells[metric.name]
    what = f"{row.chain} is {cell.conclusion} than {summary.run.compared_with} on {table.task} ({table.model})"
    return f"{what}: {metric.name} {_difference(metric, cell)}, p {_p(cell)}, {cell.samples} samples."


def title(summary: Summary) -> str:
    """Return the size of a run in one line."""
    run = summary.run
    counted = f"{len(run.chains)} strategies, {len(run.tasks)} tasks, {', '.join(run.models)}"
    return f"{counted}; {summary.done} of {summary.planned} answers"


def _task_sheet(summary: Summary, table: TaskTable) -> Sheet:
    """Return the table of a task: for each strategy the first metric with its comparison, then the other metrics."""
    first, *others = table.metrics
    entry = summary.run.tasks[table.task]
    settings = "given texts scored under the chain"
    if any(row.forwards is not None for row in table.rows):
        settings = f"{'sampled' if entry.sampling else 'greedy'}, at most {entry.max_new_tokens} tokens"
        settings += f", {entry.repeats} answers each" if entry.repeats > 1 else ""
        settings += f", {entry.beams} beams" if entry.beams > 1 else ""
    forwards = [row.forwards for row in table.rows if row.forwards is not None]
    headings = ["strategy", _heading(first), "difference to the baseline, 95 %", "p (Holm)", "conclusion"]
    rates = list(dict.fromkeys(key for row in table.rows for key in row.interventions))
    headings += (
        [_heading(metric) for metric in others]
        + (["forwards/step"] if forwards else [])
        + [" ".join(key) for key in rates]
        + ["n"]
    )
    rows = [_task_row(row, first, others, rates, forwards=bool(forwards)) for row in table.rows]
    what = "; ".join(f"{metric.name}: {metric.what}" for metric in table.metrics if metric.what)
    about = f"{table.what}, {settings}. {what}."
    marks = [row.cells[first.name].conclusion for row in table.rows]
    return Sheet(title=f"{table.task}, {table.model}", about=about, headings=headings, rows=rows, marks=marks)


def _task_row(
    row: StrategyRow, first: Metric, others: Sequence[Metric], rates: Sequence[tuple[str, str]], *, forwards: bool
) -> list[str]:
    """Return the cells of one strategy; ``rates`` are the columns of interventions."""
    cell = row.cells[first.name]
    compared = ["", "", ""]
    if cell.comparison is not None:
        compared = [_difference(first, cell), _p(cell), cell.conclusion]
    elif cell.infinite:
        compared = [f"infinite on {cell.infinite} samples", "", "not compared"]
    others_ = [_value(row.cells[metric.name], with_conclusion=True) for metric in others]
    passes = [f"{row.forwards:.2f}"] if forwards and row.forwards is not None else [""] * forwards
    shares = [f"{row.interventions[key]:.2f}" if key in row.interventions else "" for key in rates]
    return [row.chain, _value(cell), *compared, *others_, *passes, *shares, str(cell.samples)]


def _cost_sheets(summary: Summary) -> list[Sheet]:
    """Return the table of costs of each model."""
    cost_sheets = []
    for model, prices in summary.costs.items():
        entry = summary.run.cost
        assert entry is not None
        rows = []
        for name, cost in prices.items():
            each = ", ".join(f"{which} {count:.2f}" for which, count in cost.forwards.items())
            peak = "" if cost.peak is None else f"{cost.peak:.2f}"
            spread = f"{cost.low:.2f} to {cost.high:.2f}"
            rows.append([name, f"{cost.ratio:.2f}", spread, f"{cost.milliseconds:.1f}", each, peak])
        about = f"Median of {next(iter(prices.values())).rounds} paired rounds, greedy, batch {entry.batch}, "
        about += f"{entry.tokens} tokens, including prefill. A fused second prompt counts no forward of its own: its "
        about += "cost is in the time."
        headings = ["strategy", "time / baseline", "lowest to highest", "ms/token", "forwards/step", "peak / baseline"]
        cost_sheets.append(Sheet(title=f"Cost, {model}", about=about, headings=headings, rows=rows))
    return cost_sheets


def _heading(metric: Metric) -> str:
    """Return a metric's name, unit and direction."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.name}{unit} {ARROWS[metric.better]}".strip()


def _value(cell: Cell, *, with_conclusion: bool = False) -> str:
    """Return a mean, with the conclusion of its comparison if that has no column of its own."""
    shown = "infinite" if math.isinf(cell.value) else number(cell.value)
    return f"{shown} {cell.conclusion}" if with_conclusion and cell.conclusion in ("better", "worse") else shown


def _difference(metric: Metric, cell: Cell) -> str:
    """Return a difference with its interval; a ratio for exponent metrics."""
    comparison = cell.comparison
    assert comparison is not None
    if metric.exponent:
        ratio, low, high = map(math.exp, (comparison.difference, comparison.low, comparison.high))
        return f"×{number(ratio)} [{number(low)}, {number(high)}]"
    return f"{comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"


def _p(cell: Cell) -> str:
    """Return the corrected p-value."""
    assert cell.comparison is not None
    p = cell.comparison.adjusted
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float) -> str:
    """Return a number with three decimals, with one decimal from 100 on.

    Examples:
        >>> number(1.23456), number(123.456)
        ('1.235', '123.5')
    """
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def markdown(summary: Summary, reading: str = "") -> str:
    """Return the report as Markdown.

    Args:
        summary: the results of a run.
        reading: text that is placed before the tables.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from logitkit.bench.execution import Store
        >>> from logitkit.bench.report import summarise
        >>> markdown(summarise(run, Store(folder / 'results'))).splitlines()[0]
        '# Strategies side by side'
    """
    lines = ["# Strategies side by side", "", f"{title(summary)}. Baseline: {summary.run.compared_with}.", ""]
    lines += [reading.strip(), ""] if reading else []
    lines += ["## Differences that are shown", "", *(f"- {sentence}" for sentence in conclusions(summary)), ""]
    for sheet in sheets(summary):
        lines += [f"## {sheet.title}", "", sheet.about, "", _markdown_row(sheet.headings)]
        lines += ["|" + "---|" * len(sheet.headings), *(_markdown_row(row) for row in sheet.rows), ""]
    lines += ["## Strategies", ""]
    run = summary.run
    lines += [f"- {name}: `{row}`" for name, row in _texts(summary).items()]
    lines += ["", f"Seeds {', '.join(map(str, run.seeds))}; run {run.hash}.", ""]
    return "\n".join(lines)


def _texts(summary: Summary) -> dict[str, str]:
    """Return the chain of every strategy with results, by name."""
    return {row.chain: row.text or "(no chain)" for table in summary.tables for row in table.rows}


def _markdown_row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(re.sub(r"\|", r"\\|", cell) for cell in cells) + " |"


def show(summary: Summary, console: Any) -> None:
    """Print the report on a console of rich.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from rich.console import Console
        >>> from logitkit.bench.execution import Store
        >>> from logitkit.bench.report import summarise
        >>> show(summarise(run, Store(folder / 'results')), Console())  # no results yet
    """
    from logitkit.tables import FittedTable, print_fitted

    colours = {"better": "green", "worse": "red"}
    for sheet in sheets(summary):
        table = FittedTable(*sheet.headings, title=sheet.title, numbers=sheet.headings[1:])
        for place, row in enumerate(sheet.rows):
            mark = sheet.marks[place] if sheet.marks else ""
            table.add_row(*row, style=colours.get(mark, ""))
        print_fitted(console, table)
    for sentence in conclusions(summary):
        console.print(f"- {sentence}", markup=False, soft_wrap=True)
