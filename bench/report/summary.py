"""Summary of a run: means, comparisons with the baseline, and costs, as plain values that reports lay out."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import keys, plan
from logitkit.bench.report.statistics import Comparison, Conclusion, Interval, bootstrap_interval, compare
from logitkit.bench.speed.cost import StrategyCost, costs
from logitkit.bench.tasks.task import Metric, Task
from logitkit.registry.chain import Chain


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of one strategy on one task of one model.

    Attributes:
        value: mean over samples, exp of the mean for exponent metrics; infinite if any sample is infinite.
        low, high: 95 % bootstrap interval of ``value``.
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


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """Results of one task of one model.

    Attributes:
        model, task: names of the entries of the run.
        what: name of the task that the entry uses.
        metrics: the metrics with results; strategies are compared by the first.
        rows: one row per strategy, the baseline first.

    Examples:
        >>> TaskTable(model="tiny", task="words", what="lambada", metrics=[], rows=[]).what
        'lambada'
    """

    model: str
    task: str
    what: str
    metrics: Sequence[Metric]
    rows: Sequence[StrategyRow]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Results of a run.

    Attributes:
        run: the run.
        tables: one table per model and task.
        costs: the costs of the strategies, by model and strategy; without models whose cost was not measured.
        done, planned: number of records that exist, and that the run will have.

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

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON; infinite values are None."""
        tables = [dataclasses.asdict(table) for table in self.tables]
        prices = {model: {name: vars(cost) for name, cost in each.items()} for model, each in self.costs.items()}
        data = {"hash": self.run.hash, "done": self.done, "planned": self.planned, "tables": tables, "costs": prices}
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
    known = {key: store.records[key] for unit in units for key in keys(run, unit) if key in store.records}
    planned = sum(len(keys(run, unit)) for unit in units)
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in known.values():
        groups.setdefault((record["model"], record["task"], record["chain"]), []).append(record)
    tables = []
    for model in run.models:
        for name in run.tasks:
            chains = [chain for chain in run.chains if (model, name, chain) in groups]
            chains.sort(key=lambda chain: chain != run.compared_with)
            if chains:
                tables.append(_table(run, model, name, {chain: groups[model, name, chain] for chain in chains}))
    prices = {model: price for model in run.models if (price := costs(run, store, model))}
    return Summary(run=run, tables=tables, costs=prices, done=len(known), planned=planned)


def _table(run: Run, model: str, name: str, groups: Mapping[str, Sequence[Record]]) -> TaskTable:
    """Return the results of a task, given the records of each strategy."""
    task = loading.task(run, name)
    by_sample = {chain: _by_sample(task, records) for chain, records in groups.items()}
    present = {metric for samples in by_sample.values() for values in samples.values() for metric in values}
    metrics = [metric for metric in task.metrics if metric.name in present]
    cells: dict[str, dict[str, Cell]] = {chain: {} for chain in groups}
    for metric in metrics:
        values = {
            chain: {key: metrics_[metric.name] for key, metrics_ in samples.items()}
            for chain, samples in by_sample.items()
        }
        for chain, cell in _cells(metric, values, run.compared_with).items():
            cells[chain][metric.name] = cell
    rows = [
        StrategyRow(
            chain=chain,
            text=str(Chain(run.chains[chain].chain)),
            cells=cells[chain],
            interventions=_interventions(records),
            forwards=_forwards(records) if "text" in records[0] else None,
        )
        for chain, records in groups.items()
    ]
    return TaskTable(model=model, task=name, what=run.tasks[name].task, metrics=metrics, rows=rows)


def _by_sample(task: Task, records: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """Return the metrics of every sample, combined over its repeats and seeds."""
    answers: dict[str, list[dict[str, float | None]]] = {}
    for record in records:
        answers.setdefault(record["sample"], []).append(record["metrics"])
    return {sample: task.combine(each) for sample, each in answers.items()}


def _cells(metric: Metric, values: Mapping[str, Mapping[str, float | None]], baseline: str) -> dict[str, Cell]:
    """Return one metric of every strategy, compared on the samples that the strategy shares with the baseline."""
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for chain, each in values.items():
        if chain == baseline or baseline not in values:
            continue
        shared = [(values[baseline][key], value) for key, value in each.items() if key in values[baseline]]
        if shared and all(base is not None and other is not None for base, other in shared):
            pairs[chain] = [float(base) for base, _ in shared], [float(other) for _, other in shared]  # type: ignore[arg-type]
    compared = _compared(pairs)
    cells = {}
    for chain, each in values.items():
        numbers = [value for value in each.values() if value is not None]
        infinite = len(each) - len(numbers)
        unbounded = Interval(math.inf, math.inf, math.inf)
        value, low, high = bootstrap_interval(numbers) if numbers and not infinite else unbounded
        shown = math.exp if metric.exponent else float
        comparison = compared.get(chain)
        cells[chain] = Cell(
            value=shown(value),
            low=shown(low),
            high=shown(high),
            samples=len(each),
            infinite=infinite,
            comparison=comparison,
            conclusion=comparison.conclusion(metric.better) if comparison else "",
        )
    return cells


def _compared(pairs: Mapping[str, tuple[list[float], list[float]]]) -> dict[str, Comparison]:
    """Compare each strategy with the baseline; strategies with the same samples are corrected together."""
    families: dict[tuple[float, ...], list[str]] = {}
    for chain, (base, _) in pairs.items():
        families.setdefault(tuple(base), []).append(chain)
    comparisons: dict[str, Comparison] = {}
    for shared, chains in families.items():
        comparisons |= zip(chains, compare(shared, [pairs[chain][1] for chain in chains]), strict=True)
    return comparisons


def _interventions(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    """Return how often each processor intervened, as ``{(processor, quantity): share}``, averaged over records."""
    shares: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for processor, quantities in record["interventions"].items():
            for quantity, share in quantities.items():
                shares.setdefault((processor, quantity), []).append(share)
    return {key: statistics.fmean(values) for key, values in shares.items()}


def _forwards(records: Sequence[Record]) -> float:
    """Return forward passes per step, including the generating model's own; a fused second stream adds none."""
    return 1 + statistics.fmean(sum(record["forwards"].values()) / record["steps"] for record in records)


def _plain(value: Any) -> Any:
    """Return JSON data: infinite numbers become None, and tuples as keys become text."""
    if isinstance(value, dict):
        return {" ".join(key) if isinstance(key, tuple) else key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
