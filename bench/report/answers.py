"""The answers of a run for the page: items, texts and metrics of every sample, within a limit of size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import samples
from logitkit.bench.report.pairs import records_of_strategies, samples_of
from logitkit.bench.report.summary import Summary, TaskTable
from logitkit.bench.tasks.task import Sample

LIMIT = 2_000_000  # characters of JSON in a page; longer texts are cut, then samples are left out
LENGTHS = (4000, 1000, 400, 150)  # lengths at which texts are cut, tried in turn
DIGITS = 5  # significant digits of a metric


def answers(summary: Summary, store: Store, *, limit: int = LIMIT) -> list[dict[str, Any]]:
    """Return the answers of each table of a summary as plain data.

    Texts are cut at the largest of `LENGTHS` at which the data have at most ``limit`` characters. If even the smallest
    is too long, the last samples of every table are left out. The data say both.

    Args:
        summary: the results of the run.
        store: its records.
        limit: largest number of characters of the data as JSON.

    Returns:
        For each table ``task``, ``model``, ``strategies``, ``metrics``, ``chart`` (place of the metric of the plots),
        ``total`` (samples with records), ``length`` (at which texts are cut) and ``samples``. A sample has ``id``,
        ``item`` (text) and ``answers``, one for each strategy: None without records, else ``values`` (None for an
        infinite metric) and ``texts``. ``texts`` is None if it equals that of the first strategy.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from logitkit.bench.execution import Store, carry_out
        >>> from logitkit.bench.report import summarise
        >>> with Store(folder / 'results') as store:
        ...     carry_out(run, store)
        >>> (table,) = answers(summarise(run, store), store)
        >>> table["strategies"], len(table["samples"])
        (['plain', 'cfg'], 2)
    """
    groups = records_of_strategies(summary.run, store)
    for length in LENGTHS:
        tables = [_table(summary.run, table, groups, length) for table in summary.tables]
        if _size(tables) <= limit:
            return tables
    while (size := _size(tables)) > limit and any(table["samples"] for table in tables):
        for table in tables:
            table["samples"] = table["samples"][: int(len(table["samples"]) * min(0.95, limit / size))]
    return tables


def as_script(tables: Sequence[Mapping[str, Any]]) -> str:
    r"""Return answers as JSON that may stand in a ``script`` element: no character of it can end the element.

    Examples:
        >>> as_script([{"task": "</script>"}])
        '[{"task":"\\u003c/script>"}]'
    """
    return json.dumps(tables, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _size(tables: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of characters of the answers in a page."""
    return len(as_script(tables))


def _table(
    run: Run, table: TaskTable, groups: Mapping[tuple[str, str, str], Sequence[Record]], length: int
) -> dict[str, Any]:
    """Return the answers of one task, with texts of at most ``length`` characters."""
    task, strategies = loading.task(run, table.task), [row.chain for row in table.rows]
    metrics = [metric.name for metric in table.metrics]
    values = {chain: samples_of(task, groups[table.model, table.task, chain]) for chain in strategies}
    texts: dict[str, dict[str, list[str]]] = {chain: {} for chain in strategies}
    for chain in strategies:
        for record in groups[table.model, table.task, chain]:
            if "text" in record:
                texts[chain].setdefault(record["sample"], []).append(_cut(record["text"], length))
    shown = []
    for sample in samples(run, table.task):
        base = texts[strategies[0]].get(sample.id)
        found = []
        for place, chain in enumerate(strategies):
            each, text = values[chain].get(sample.id), texts[chain].get(sample.id)
            same = place > 0 and text == base
            numbers = None if each is None else [_rounded(each.get(name)) for name in metrics]
            found.append(None if numbers is None else {"values": numbers, "texts": None if same else text})
        if any(found):
            shown.append({"id": sample.id, "item": _item(sample, length), "answers": found})
    described = [{"name": m.name, "better": m.better, "exponent": m.exponent} for m in table.metrics]
    return {
        "task": table.task,
        "model": table.model,
        "strategies": strategies,
        "metrics": described,
        "chart": metrics.index(table.chart) if table.chart in metrics else 0,
        "total": len(shown),
        "length": length,
        "samples": shown,
    }


def _item(sample: Sample, length: int) -> str:
    """Return the item of a sample as text: a line for each text or number of its data."""
    lines = []
    for name, value in sample.data.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        if all(isinstance(part, (str, int, float)) for part in parts):
            lines.append(f"{name}: {_cut(' | '.join(map(str, parts)), length)}")
    return "\n".join(lines)


def _cut(text: str, length: int) -> str:
    """Return a text, or its beginning with a mark."""
    return text if len(text) <= length else f"{text[:length]} …"


def _rounded(value: float | None) -> float | None:
    """Return a metric with few digits; None for an infinite value."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
