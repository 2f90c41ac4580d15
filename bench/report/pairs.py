"""The records of a run by strategy, and the paired values of a strategy and the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import keys, plan
from logitkit.bench.tasks.task import Task

Groups = dict[tuple[str, str, str], list[Record]]


def records_of_strategies(run: Run, store: Store) -> Groups:
    """Return the records of a run by model, task and strategy.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> records_of_strategies(example_run(folder), Store(folder / "results"))
        {('tiny', 'lambada', 'plain'): [], ('tiny', 'lambada', 'cfg'): []}
    """
    groups: Groups = {}
    for unit in plan(run):
        found = [store.records[key] for key in keys(run, unit) if key in store.records]
        groups.setdefault((unit.model, unit.task, unit.chain), []).extend(found)
    return groups


def samples_of(task: Task, records: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """Return the metrics of every sample, combined over its repeats and seeds."""
    answers: dict[str, list[dict[str, float | None]]] = {}
    for record in records:
        answers.setdefault(record["sample"], []).append(record["metrics"])
    return {sample: task.combine(each) for sample, each in answers.items()}


def finite_pairs(
    base: Mapping[str, Mapping[str, float | None]], other: Mapping[str, Mapping[str, float | None]], metric: str
) -> tuple[list[float], list[float]]:
    """Return the values of a metric on the samples on which it is finite for both strategies, in one order.

    Examples:
        >>> finite_pairs({"a": {"loss": 1.0}, "b": {"loss": None}}, {"a": {"loss": 2.0}, "b": {"loss": 3.0}}, "loss")
        ([1.0], [2.0])
    """
    shared = [(base[key].get(metric), other[key].get(metric)) for key in base if key in other]
    finite = [(first, second) for first, second in shared if first is not None and second is not None]
    return [first for first, _ in finite], [second for _, second in finite]


def comparisons_of(run: Run, groups: Groups) -> int:
    """Return the number of comparisons that the report of a run corrects for together.

    These are its hypotheses if it has some, else the comparisons of every strategy with the baseline on each metric.

    Args:
        run: the run.
        groups: its records, from `records_of_strategies`.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> comparisons_of(example_run(folder), {("tiny", "lambada", "cfg"): [{"metrics": {"accuracy": 1, "loss": 2}}]})
        2
    """
    if run.hypotheses:
        return sum(1 if each.model else len(run.models) for each in run.hypotheses)
    others = [records for (_, _, chain), records in groups.items() if records and chain != run.compared_with]
    return max(1, sum(len(records[0]["metrics"]) for records in others))
