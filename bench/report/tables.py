"""Tables of a summary as text, for the reports in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.bench.report.conclusions import conclusions
from logitkit.bench.report.design import design
from logitkit.bench.report.summary import StrategyRow, Summary, TaskTable
from logitkit.bench.report.wording import FUSED, agreeing, counted, difference_text, heading, mean_text, p_text
from logitkit.bench.tasks.task import Metric

METHOD = """\
Brackets hold 95 % intervals: Wilson's for shares of samples, Tango's for differences of paired shares, and the
bootstrap (BCa) for other means. Comparisons are paired over samples. A difference is shown if its corrected p-value is
below 0.05 and its interval excludes 0. The test is McNemar's exact test for metrics that are right or wrong, and sign
flips otherwise. The design of the run says over which comparisons Holm's correction is. A mean has no bracket if all
samples are equal and the metric is no share: such samples do not tell how much others would vary."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of text.

    Attributes:
        title: title of the table.
        about: a sentence about the table.
        headings: the headings of the columns.
        rows: the cells of each row.
        marks: the conclusion of each row, which sets its colour in the terminal; empty for a table without.
        optional: headings of columns that a narrow terminal leaves out, the first of them first.
        detail: whether the table is detail: the page folds it away, and the terminal leaves it out.
    """

    title: str
    about: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Sequence[str] = ()
    optional: Sequence[str] = ()
    detail: bool = False


def sheets(summary: Summary) -> list[Sheet]:
    """Return every table of a summary: the hypotheses, two for each task of each model, then the costs."""
    of_tasks = []
    for table in summary.tables:
        of_tasks.append(_task_sheet(summary, table))
        if len(table.metrics) > 1 and len(table.rows) > 1:
            of_tasks.append(_comparison_sheet(table))
    return [*_hypothesis_sheets(summary), *of_tasks, *_cost_sheets(summary)]


def _hypothesis_sheets(summary: Summary) -> list[Sheet]:
    """Return the table of the hypotheses; none without hypotheses."""
    rows = []
    for found in summary.findings:
        named, cell = found.hypothesis, found.cell
        against = named.against or summary.run.compared_with
        what = f"{named.chain} {named.expect} than {against}" if named.expect != "different" else ""
        what = what or f"{named.chain} different from {against}"
        place = f"{what} on {named.task}, {found.model}: {heading(found.metric)}"
        figures = [difference_text(found.metric, cell), p_text(cell)] if cell else ["", ""]
        least = f"{named.smallest:g}" if named.smallest else ""
        rows.append([place, "pre-registered" if found.registered else "exploratory", least, *figures, found.verdict])
    about = "What was expected before the run. Holm's correction is over the hypotheses. The smallest difference of "
    about += "interest is in the unit of the metric, and of a ratio in its logarithm."
    headings = ["hypothesis", "status", "smallest of interest", "difference, 95 %", "p (Holm)", "verdict"]
    return [Sheet(title="Hypotheses", about=about, headings=headings, rows=rows)] if rows else []


def title(summary: Summary) -> str:
    """Return the size of a run in one line."""
    run = summary.run
    size = f"{counted(len(run.chains), 'strategy')}, {counted(len(run.tasks), 'task')}, {', '.join(run.models)}"
    return f"{size}; {summary.done} of {counted(summary.planned, 'answer')}"


def _task_sheet(summary: Summary, table: TaskTable) -> Sheet:
    """Return the table of a task: for each strategy the first metric with its comparison, then the other metrics."""
    first, *others = table.metrics
    entry = summary.run.tasks[table.task]
    settings = "given texts scored under the chain"
    if any(row.forwards is not None for row in table.rows):
        settings = f"{'sampled' if entry.sampling else 'greedy'}, at most {counted(entry.max_new_tokens, 'token')}"
        settings += f", {entry.repeats} answers each" if entry.repeats > 1 else ""
        settings += f", {entry.beams} beams" if entry.beams > 1 else ""
    forwards = [row.forwards for row in table.rows if row.forwards is not None]
    caches = [row.cache_bytes for row in table.rows if row.cache_bytes is not None]
    headings = ["strategy", heading(first), "difference to the baseline, 95 %", "p (Holm)", "conclusion"]
    rates = list(dict.fromkeys(key for row in table.rows for key in row.interventions))
    headings += (
        [heading(metric) for metric in others]
        + (["forwards/step"] if forwards else [])
        + (["KV cache, MB"] if caches else [])
        + [" ".join(key) for key in rates]
        + ["n"]
    )
    rows = [_task_row(row, first, others, rates, forwards=bool(forwards), caches=bool(caches)) for row in table.rows]
    what = "; ".join(f"{metric.name}: {metric.what}" for metric in table.metrics if metric.what)
    about = f"{table.what}, {settings}. {what}." + (f" {FUSED}" if forwards else "")
    marks = [row.cells[first.name].conclusion for row in table.rows]
    optional = headings[-2:4:-1]
    title = f"{table.task}, {table.model}"
    return Sheet(title=title, about=about, headings=headings, rows=rows, marks=marks, optional=optional)


def _task_row(
    row: StrategyRow,
    first: Metric,
    others: Sequence[Metric],
    rates: Sequence[tuple[str, str]],
    *,
    forwards: bool,
    caches: bool,
) -> list[str]:
    """Return the cells of one strategy; ``rates`` are the columns of interventions."""
    cell = row.cells[first.name]
    compared = ["", "", ""]
    if cell.comparison is not None:
        compared = [difference_text(first, cell), p_text(cell), cell.conclusion]
    elif cell.infinite:
        compared = ["", "", "not compared"]
    others_ = [_with_conclusion(row, metric) for metric in others]
    passes = [f"{row.forwards:.2f}"] if forwards and row.forwards is not None else [""] * forwards
    passes += [f"{row.cache_bytes / 1e6:.1f}" if caches and row.cache_bytes is not None else ""] * caches
    shares = [f"{row.interventions[key]:.2f}" if key in row.interventions else "" for key in rates]
    return [row.chain, mean_text(cell), *compared, *others_, *passes, *shares, str(cell.samples)]


def _with_conclusion(row: StrategyRow, metric: Metric) -> str:
    """Return a mean with its interval, and with the conclusion if a difference to the baseline is shown."""
    cell = row.cells[metric.name]
    return f"{mean_text(cell)} {cell.conclusion}" if cell.conclusion in ("better", "worse") else mean_text(cell)


def _comparison_sheet(table: TaskTable) -> Sheet:
    """Return the differences of every metric to the baseline, one row for each strategy and metric."""
    rows, marks = [], []
    for row in table.rows:
        for metric in table.metrics:
            cell = row.cells[metric.name]
            if (found := cell.comparison) is not None:
                changed = f"{found.up} up, {found.down} down of {found.samples}"
                difference, p = difference_text(metric, cell), p_text(cell)
                rows.append([row.chain, heading(metric), difference, p, cell.conclusion, changed, found.test])
                marks.append(cell.conclusion)
    headings = ["strategy", "metric", "difference to the baseline, 95 %", "p (Holm)", "conclusion", "samples", "test"]
    about = f"{agreeing(len(rows), 'Comparison')} with the baseline on each metric, except metrics that are infinite."
    title = f"{table.task}, {table.model}: every metric against the baseline"
    return Sheet(title=title, about=about, headings=headings, rows=rows, marks=marks, detail=True)


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
        rounds = next(iter(prices.values())).rounds
        about = f"Median of {counted(rounds, 'paired round')}, greedy, batch {entry.batch}, "
        about += f"{counted(entry.tokens, 'token')}, including prefill. {coverage(rounds)} {FUSED}"
        headings = ["strategy", "time / baseline", "lowest to highest", "ms/token", "forwards/step", "peak / baseline"]
        cost_sheets.append(Sheet(title=f"Cost, {model}", about=about, headings=headings, rows=rows))
    return cost_sheets


def coverage(rounds: int) -> str:
    """Return what the range from the lowest to the highest of paired rounds says about the median of the cost.

    Each round lies below the true median with probability 1/2, so all of them lie on one side of it with probability
    ``2 ** (1 - rounds)``; otherwise the range holds the median. This needs no assumption but independent rounds.

    Examples:
        >>> coverage(5)
        'The range from the lowest to the highest round holds the true median with a confidence of 94 %.'
    """
    if rounds < 2:
        return "One round gives no range."
    share = f"{100 * (1 - 2.0 ** (1 - rounds)):.0f} %" if rounds < 9 else "more than 99 %"
    return f"The range from the lowest to the highest round holds the true median with a confidence of {share}."


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
    lines += [" ".join(METHOD.split()), ""]
    if about := design(summary):
        lines += ["## Design of the run", "", *(f"- {sentence}" for sentence in about), ""]
    for sheet in sheets(summary):
        lines += [f"## {sheet.title}", "", sheet.about, "", _markdown_row(sheet.headings)]
        lines += ["|" + "---|" * len(sheet.headings), *(_markdown_row(row) for row in sheet.rows), ""]
    lines += ["## Strategies", ""]
    run = summary.run
    lines += [f"- {name}: `{row}`" for name, row in _texts(summary).items()]
    lines += ["", f"{agreeing(len(run.seeds), 'Seed')} {', '.join(map(str, run.seeds))}; run {run.hash}.", ""]
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
        if sheet.detail:
            continue
        table = FittedTable(*sheet.headings, title=sheet.title, numbers=sheet.headings[1:], optional=sheet.optional)
        for place, row in enumerate(sheet.rows):
            mark = sheet.marks[place] if sheet.marks else ""
            table.add_row(*row, style=colours.get(mark, ""))
        print_fitted(console, table)
    for sentence in [*conclusions(summary), *design(summary)]:
        console.print(f"- {sentence}", markup=False, soft_wrap=True)
