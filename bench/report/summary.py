"""What a run found: means, comparisons with the baseline, cost. Plain values; reports only lay them out."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import keys, plan
from logitkit.bench.report.statistics import Comparison, Conclusion, compare, interval
from logitkit.bench.speed.cost import StrategyCost, costs
from logitkit.bench.tasks.task import Metric, Task
from logitkit.registry.chain import Chain


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of one strategy on one task of one model.

    Attributes:
        value: mean over samples (of exponent metrics: exp of the mean); inf where some sample's is.
        low, high: 95 % bootstrap interval of it.
        samples: how many there are.
        infinite: of how many the metric is infinite; such a metric is not compared.
        comparison: with the baseline; None for the baseline itself, and where one of the two is infinite.
        conclusion: what can be called; empty without a comparison.
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
    """One strategy on one task: its metrics by name, and what its traces said on average."""

    chain: str
    text: str
    cells: Mapping[str, Cell]
    interventions: Mapping[tuple[str, str], float]
    forwards: float | None


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """One task of one model: a row for each strategy, the baseline first."""

    model: str
    task: str
    what: str
    metrics: Sequence[Metric]
    rows: Sequence[StrategyRow]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All tables of a run, the cost of its strategies by model, and how much of it is there."""

    run: Run
    tables: Sequence[TaskTable]
    costs: Mapping[str, Mapping[str, StrategyCost]]
    done: int
    planned: int

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON; what is infinite is null."""
        tables = [dataclasses.asdict(table) for table in self.tables]
        prices = {model: {name: vars(cost) for name, cost in each.items()} for model, each in self.costs.items()}
        told = {"hash": self.run.hash, "done": self.done, "planned": self.planned, "tables": tables, "costs": prices}
        plain: dict[str, Any] = _plain(told)
        return plain


def summarise(run: Run, store: Store) -> Summary:
    """Read the records of a run and compare its strategies; what is not there yet is left out."""
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
    task = loading.task(run, name)
    found = {chain: _by_sample(task, records) for chain, records in groups.items()}
    present = {metric for samples in found.values() for one in samples.values() for metric in one}
    metrics = [metric for metric in task.metrics if metric.name in present]
    cells: dict[str, dict[str, Cell]] = {chain: {} for chain in groups}
    for metric in metrics:
        values = {chain: {key: one[metric.name] for key, one in samples.items()} for chain, samples in found.items()}
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
    """Metrics of every sample, over its repeats and seeds."""
    answers: dict[str, list[dict[str, float | None]]] = {}
    for record in records:
        answers.setdefault(record["sample"], []).append(record["metrics"])
    return {sample: task.combine(each) for sample, each in answers.items()}


def _cells(metric: Metric, values: Mapping[str, Mapping[str, float | None]], baseline: str) -> dict[str, Cell]:
    """A metric of every strategy, compared on the samples that a strategy and the baseline share."""
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for chain, each in values.items():
        if chain == baseline or baseline not in values:
            continue
        shared = [(values[baseline][key], value) for key, value in each.items() if key in values[baseline]]
        if shared and all(one is not None and other is not None for one, other in shared):
            pairs[chain] = [float(one) for one, _ in shared], [float(other) for _, other in shared]  # type: ignore[arg-type]
    compared = _compared(pairs)
    found = {}
    for chain, each in values.items():
        numbers = [value for value in each.values() if value is not None]
        infinite = len(each) - len(numbers)
        value = statistics.fmean(numbers) if numbers and not infinite else math.inf
        low, high = interval(np.asarray(numbers)) if numbers and not infinite else (math.inf, math.inf)
        shown = math.exp if metric.exponent else float
        comparison = compared.get(chain)
        found[chain] = Cell(
            value=shown(value),
            low=shown(low),
            high=shown(high),
            samples=len(each),
            infinite=infinite,
            comparison=comparison,
            conclusion=comparison.conclusion(metric.better) if comparison else "",
        )
    return found


def _compared(pairs: Mapping[str, tuple[list[float], list[float]]]) -> dict[str, Comparison]:
    """Compare each strategy with the baseline; those with the same samples are corrected together."""
    families: dict[tuple[float, ...], list[str]] = {}
    for chain, (base, _) in pairs.items():
        families.setdefault(tuple(base), []).append(chain)
    found: dict[str, Comparison] = {}
    for same, chains in families.items():
        found |= zip(chains, compare(same, [pairs[chain][1] for chain in chains]), strict=True)
    return found


def _interventions(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    """How often each processor intervened, as ``{(processor, quantity): share}``: means over records."""
    shares: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for processor, quantities in record["interventions"].items():
            for quantity, share in quantities.items():
                shares.setdefault((processor, quantity), []).append(share)
    return {key: statistics.fmean(values) for key, values in shares.items()}


def _forwards(records: Sequence[Record]) -> float:
    """Forward passes a step, the generating model's own included; a fused second stream is not one more."""
    return 1 + statistics.fmean(sum(record["forwards"].values()) / record["steps"] for record in records)


def _plain(value: Any) -> Any:
    """The same with what JSON cannot hold as null."""
    if isinstance(value, dict):
        return {" ".join(key) if isinstance(key, tuple) else key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
