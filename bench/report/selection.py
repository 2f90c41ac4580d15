"""Choice of a setting of each strategy by the development split, and the run that judges them on the other split."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run, TaskEntry, TunedEntry
from logitkit.bench.report.packages import stats
from logitkit.bench.report.summary import Summary, TaskTable
from logitkit.bench.tasks.task import Metric
from logitkit.errors import ParameterError, UnknownNameError


def chosen_settings(summary: Summary, metric: str | None = None) -> dict[str, str]:
    """Return the best setting of each strategy, as names of chains by strategy.

    On each task of each model, the settings of a strategy are ranked by the mean of a metric; an infinite mean is the
    worst. The setting with the best average rank is chosen, of several the first.

    Args:
        summary: a finished run.
        metric: name of the metric; None: the main one of each task.

    Raises:
        ParameterError: the run is not finished.
        UnknownNameError: no task has the metric, or the metric has no direction.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from logitkit.bench.execution import Store, carry_out
        >>> from logitkit.bench.report import summarise
        >>> with Store(folder / "results") as store:
        ...     carry_out(run, store)
        >>> chosen_settings(summarise(run, store), "loss")
        {'plain': 'plain', 'cfg': 'cfg'}
    """
    if summary.done < summary.planned:
        way_out = "continue the run, then choose"
        raise ParameterError(
            "bench choose", "the run", "finished", f"{summary.done} of {summary.planned} answers", way_out
        )
    directed = {each.name for table in summary.tables for each in table.metrics if each.better}
    if metric is not None and metric not in directed:
        raise UnknownNameError("metric with a direction", metric, directed)
    chosen = {}
    for strategy, chains in summary.run.strategies().items():
        ranks = [_ranks(table, chains, metric) for table in summary.tables]
        average = np.mean([each for each in ranks if each is not None] or [[0.0] * len(chains)], axis=0)
        chosen[strategy] = chains[int(np.argmin(average))]
    return chosen


def _ranks(table: TaskTable, chains: list[str], metric: str | None) -> list[float] | None:
    """Return the ranks of the settings of a strategy on one task, the best first; None if the task says nothing."""
    rows = {row.chain: row for row in table.rows}
    by: Metric | None = next((each for each in table.metrics if each.name == metric or not metric), None)
    if by is None or by.better is None or not all(chain in rows for chain in chains):
        return None
    values = [rows[chain].cells[by.name].value for chain in chains]
    sign = 1 if by.better == "lower" else -1
    return [float(rank) for rank in stats.rankdata([sign * v if math.isfinite(v) else math.inf for v in values])]


def held_out_run(summary: Summary, metric: str | None = None) -> dict[str, Any]:
    """Return the data of a run file that judges the chosen settings on the held-out split.

    The strategies keep their names and their order; tasks keep their settings but for the split, and but for
    ``samples`` where the held-out split has fewer.

    Args:
        summary: a finished run of which every task uses the development split.
        metric: as for `chosen_settings`.

    Raises:
        ParameterError: a task has another split, or the run is not finished.
    """
    run = summary.run
    for name, entry in run.tasks.items():
        if entry.split != "development":
            way_out = "add defaults: {split: development} to the run file, and run it"
            raise ParameterError("bench choose", f"the split of task {name}", "'development'", entry.split, way_out)
    chosen = chosen_settings(summary, metric)
    data = run.model_dump(mode="json", exclude_defaults=True, exclude={"folder", "allow_code_execution", "tuned"})
    data["chains"] = {
        strategy: {key: value for key, value in data["chains"][chain].items() if key != "strategy"}
        for strategy, chain in chosen.items()
    }
    data["tasks"] = {name: _held_out(run, entry) for name, entry in run.tasks.items()}
    names = {chain: strategy for strategy, chains in run.strategies().items() for chain in chains}
    for hypothesis in data.get("hypotheses", []):
        hypothesis |= {
            key: names.get(hypothesis[key], hypothesis[key]) for key in ("chain", "against") if key in hypothesis
        }
    baseline = run.chains[run.compared_with].strategy or run.compared_with
    tuned = TunedEntry(
        run=run.hash,
        metric=metric or "",
        tasks=run.tasks,
        settings={name: len(chains) for name, chains in run.strategies().items()},
        comparisons=summary.comparisons,
    )
    return {**data, "baseline": baseline, "tuned": tuned.model_dump(mode="json", exclude_defaults=True)}


def _held_out(run: Run, entry: TaskEntry) -> dict[str, Any]:
    """Return the data of a task on the held-out split."""
    other = entry.model_copy(update={"split": "held_out", "samples": None})
    if entry.samples is not None and entry.samples <= len(loading.samples_of_entry(other, run.folder)):
        other = other.model_copy(update={"samples": entry.samples})
    data: dict[str, Any] = other.model_dump(mode="json", exclude_defaults=True)
    return data
