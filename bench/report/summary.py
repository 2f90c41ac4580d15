"""Summary of a run: means, comparisons with the baseline, and costs, as plain values that reports lay out."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run
from logitkit.bench.execution.registration import Registration, registration
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import keys, plan, tuned_items
from logitkit.bench.report.cells import Cell, cells_of_metric, corrected_together, is_share
from logitkit.bench.report.hypotheses import Finding, findings
from logitkit.bench.report.intervals import Interval, bootstrap_interval
from logitkit.bench.report.pairs import samples_of
from logitkit.bench.report.statistics import shown_better
from logitkit.bench.speed.cost import StrategyCost, costs
from logitkit.bench.tasks.task import Metric
from logitkit.registry.chain import Chain

COARSE = 0.1  # width of an interval of a share above which plots show the loss instead


@dataclass(frozen=True, kw_only=True)
class StrategyRow:
    """One strategy on one task.

    Attributes:
        chain: name of the strategy.
        text: its chain.
        cells: the metrics by name.
        interventions: how often each processor intervened, as ``{(processor, quantity): share}``, averaged over the
            records.
        forwards: forward passes per step, including the generating model's own; None for a task that scores texts.
        forwards_low, forwards_high: 95 % bootstrap interval of ``forwards`` over batches.
        cache_bytes: largest number of bytes that KV caches held at once in any batch; None: the chain has no search.

    Examples:
        >>> row = StrategyRow(chain="plain", text="", cells={}, interventions={("uscd", "fired"): 0.5}, forwards=1.0)
        >>> row.interventions["uscd", "fired"]
        0.5
    """

    chain: str
    text: str
    cells: Mapping[str, Cell]
    interventions: Mapping[tuple[str, str], float]
    forwards: float | None
    forwards_low: float | None = None
    forwards_high: float | None = None
    cache_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """Results of one task of one model.

    Attributes:
        model, task: names of the entries of the run.
        what: name of the task that the entry uses.
        metrics: the metrics with results; strategies are compared by the first.
        rows: one row per strategy, the baseline first.
        chart: name of the metric that plots show, by `chart_metric`.
        better: for each strategy the strategies that are shown to be better on ``chart``, by `shown_better`. Holm's
            correction is over all pairs of strategies.

    Examples:
        >>> TaskTable(model="tiny", task="words", what="lambada", metrics=[], rows=[]).what
        'lambada'
    """

    model: str
    task: str
    what: str
    metrics: Sequence[Metric]
    rows: Sequence[StrategyRow]
    chart: str = ""
    better: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Results of a run.

    Attributes:
        run: the run.
        tables: one table per model and task.
        costs: the costs of the strategies, by model and strategy; without models whose cost was not measured.
        done, planned: number of records that exist, and that the run will have.
        comparisons: number of comparisons with the baseline.
        registration: of the folder of results; None without.
        findings: what the results say about the hypotheses of the run.
        used: of each task, the number of its items by which settings were chosen too, as `Run.tuned` says.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> run = example_run(pathlib.Path(tempfile.mkdtemp()))
        >>> Summary(run=run, tables=[], costs={}, done=0, planned=4).as_data()["planned"]
        4
    """

    run: Run
    tables: Sequence[TaskTable]
    costs: Mapping[str, Mapping[str, StrategyCost]]
    done: int
    planned: int
    comparisons: int = 0
    used: Mapping[str, int] = field(default_factory=dict)
    registration: Registration | None = None
    findings: Sequence[Finding] = ()

    @property
    def further(self) -> int:
        """Number of comparisons in which settings were chosen by items of this run; they are corrected for too."""
        return self.run.tuned.comparisons if self.run.tuned and any(self.used.values()) else 0

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON; infinite values are None."""
        tables = [dataclasses.asdict(table) for table in self.tables]
        prices = {model: {name: vars(cost) for name, cost in each.items()} for model, each in self.costs.items()}
        counts = {"done": self.done, "planned": self.planned, "comparisons": self.comparisons, "used": dict(self.used)}
        tested = [dataclasses.asdict(each) | {"hypothesis": each.hypothesis.model_dump()} for each in self.findings]
        registered = dataclasses.asdict(self.registration) if self.registration else None
        designed = {"registration": registered, "findings": tested}
        data = {"hash": self.run.hash, **counts, **designed, "tables": tables, "costs": prices}
        plain: dict[str, Any] = _plain(data)
        return plain


def summarise(run: Run, store: Store) -> Summary:
    """Compare the strategies of a run by the records that the store holds; missing records are left out.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from logitkit.bench.execution import Store, carry_out
        >>> with Store(folder / 'results') as store:
        ...     carry_out(run, store)
        >>> summary = summarise(run, store)
        >>> summary.done, [row.chain for row in summary.tables[0].rows]
        (4, ['plain', 'cfg'])
        >>> summary.tables[0].rows[1].cells['accuracy'].conclusion
        'not shown'
    """
    units = plan(run)
    planned = {key: number for number, unit in enumerate(units) for key in keys(run, unit)}
    groups: dict[tuple[str, str, str], dict[int, list[Record]]] = {}
    for key, unit in planned.items():
        if (record := store.records.get(key)) is not None:
            group = groups.setdefault((record["model"], record["task"], record["chain"]), {})
            group.setdefault(unit, []).append(record)
    tables = []
    for model in run.models:
        for name in run.tasks:
            chains = [chain for chain in run.chains if (model, name, chain) in groups]
            chains.sort(key=lambda chain: chain != run.compared_with)
            if chains:
                batches = {chain: list(groups[model, name, chain].values()) for chain in chains}
                tables.append(_table(run, model, name, batches))
    prices = {model: price for model in run.models if (price := costs(run, store, model))}
    done = sum(key in store.records for key in planned)
    used = {name: len(tuned_items(run, name)) for name in run.tasks}
    summary = Summary(run=run, tables=tables, costs=prices, done=done, planned=len(planned), used=used)
    registered = registration(store.folder, run)
    found = findings(run, store, registered, further=summary.further)
    return dataclasses.replace(_corrected(summary), registration=registered, findings=found)


def _corrected(summary: Summary) -> Summary:
    """Return a summary with the number of its comparisons, corrected together unless the run corrects by task."""
    places = [(t, r, metric) for t in summary.tables for r in t.rows for metric in t.metrics]
    cells = [(metric, row.cells[metric.name]) for _, row, metric in places]
    count = sum(cell.comparison is not None for _, cell in cells)
    if summary.run.correction == "task":
        return dataclasses.replace(summary, comparisons=count)
    found = iter(corrected_together(cells, further=summary.further))
    tables = [
        dataclasses.replace(
            table,
            rows=[dataclasses.replace(row, cells={m.name: next(found) for m in table.metrics}) for row in table.rows],
        )
        for table in summary.tables
    ]
    return dataclasses.replace(summary, tables=tables, comparisons=count)


def _table(run: Run, model: str, name: str, groups: Mapping[str, Sequence[Sequence[Record]]]) -> TaskTable:
    """Return the results of a task, given the records of each strategy by batch."""
    task = loading.task(run, name)
    records = {chain: [record for batch in batches for record in batch] for chain, batches in groups.items()}
    by_sample = {chain: samples_of(task, each) for chain, each in records.items()}
    present = {metric for samples in by_sample.values() for values in samples.values() for metric in values}
    metrics = [metric for metric in task.metrics if metric.name in present]
    cells: dict[str, dict[str, Cell]] = {chain: {} for chain in groups}
    for metric in metrics:
        for chain, cell in cells_of_metric(metric, _values(by_sample, metric.name), run.compared_with).items():
            cells[chain][metric.name] = cell
    rows = []
    for chain, batches in groups.items():
        forwards = _forwards(batches) if "text" in records[chain][0] else (None, None, None)
        rows.append(
            StrategyRow(
                chain=chain,
                text=str(Chain(run.chains[chain].chain)),
                cells=cells[chain],
                interventions=_interventions(records[chain]),
                forwards=forwards[0],
                forwards_low=forwards[1],
                forwards_high=forwards[2],
                cache_bytes=_cache_bytes(records[chain]),
            )
        )
    table = TaskTable(model=model, task=name, what=run.tasks[name].task, metrics=metrics, rows=rows)
    chart = chart_metric(table)
    return dataclasses.replace(table, chart=chart.name, better=_better(chart, _values(by_sample, chart.name)))


def chart_metric(table: TaskTable) -> Metric:
    """Return the metric that plots show: the first metric, or the task's loss where the first metric is too coarse.

    A share of right answers is too coarse if the 95 % interval of the first strategy is wider than `COARSE`, which
    needs about 400 samples. The loss is the first metric with a unit of which lower values are better. It is chosen
    only if it is finite for two strategies.
    """
    first = table.metrics[0]
    cell = table.rows[0].cells[first.name]
    if not first.binary or cell.high - cell.low <= COARSE:
        return first
    for metric in table.metrics:
        finite = sum(math.isfinite(row.cells[metric.name].value) for row in table.rows)
        if metric.better == "lower" and metric.unit and finite > 1:
            return metric
    return first


def _better(metric: Metric, values: Mapping[str, Mapping[str, float | None]]) -> dict[str, tuple[str, ...]]:
    """Return the strategies that are shown to be better than each strategy; strategies with infinite values are out."""
    finite = {chain: each for chain, each in values.items() if None not in each.values()}
    return shown_better(finite, metric.better, share=is_share(metric)) if metric.better else {}  # type: ignore[arg-type]


def _values(
    by_sample: Mapping[str, Mapping[str, Mapping[str, float | None]]], metric: str
) -> dict[str, dict[str, float | None]]:
    """Return one metric of every sample of each strategy."""
    return {chain: {key: each[metric] for key, each in samples.items()} for chain, samples in by_sample.items()}


def _interventions(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    """Return how often each processor intervened, as ``{(processor, quantity): share}``, averaged over records."""
    shares: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for processor, quantities in record["interventions"].items():
            for quantity, share in quantities.items():
                shares.setdefault((processor, quantity), []).append(share)
    return {key: statistics.fmean(values) for key, values in shares.items()}


def _forwards(groups: Sequence[Sequence[Record]]) -> Interval:
    """Return forward passes per step, including the generating model's own; a fused second stream adds none.

    The records of one batch share their counters, so batches are resampled and not records.
    """
    shares = [[sum(record["forwards"].values()) / record["steps"] for record in records] for records in groups]
    extra = bootstrap_interval([sum(each) for each in shares], [len(each) for each in shares])
    return Interval(*(1 + value for value in extra))


def _cache_bytes(records: Sequence[Record]) -> int | None:
    """Return the largest number of bytes that the KV caches of a search held at once; None without a search."""
    return max((record["search"]["peak_cache_bytes"] for record in records if "search" in record), default=None)


def _plain(value: Any) -> Any:
    """Return JSON data: infinite numbers become None, and tuples as keys become text."""
    if isinstance(value, dict):
        return {" ".join(key) if isinstance(key, tuple) else key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
