"""Tests of the hypotheses of a run: the expected direction, the smallest difference of interest, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from logitkit.bench.config import loading
from logitkit.bench.config.run import HypothesisEntry, Run
from logitkit.bench.execution.registration import Registration
from logitkit.bench.execution.store import Store
from logitkit.bench.report.cells import Cell, cells_of_metric, corrected_together
from logitkit.bench.report.pairs import records_of_strategies, samples_of
from logitkit.bench.tasks.task import Metric


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A hypothesis on one model, and what the results say.

    Attributes:
        hypothesis: the hypothesis.
        model: name of the model.
        metric: the metric.
        cell: the metric of the strategy, compared with the other one; p-values are corrected over all hypotheses.
            None without results, or if a value is infinite.
        registered: whether the hypothesis was registered before the first answer, and what it names is unchanged.
        verdict: see `verdict`.

    Examples:
        >>> entry = HypothesisEntry(chain="cfg", task="words")
        >>> metric = Metric(name="loss", better="lower", unit="nats")
        >>> Finding(hypothesis=entry, model="tiny", metric=metric, cell=None, registered=True, verdict="").registered
        True
    """

    hypothesis: HypothesisEntry
    model: str
    metric: Metric
    cell: Cell | None
    registered: bool
    verdict: str


def findings(run: Run, store: Store, registered: Registration | None, *, further: int = 0) -> list[Finding]:
    """Return what the results say about each hypothesis, on each model that it is about.

    Args:
        run: the run.
        store: its records.
        registered: the registration of the records.
        further: comparisons by which settings were chosen on items of the run; the correction counts them too.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> findings(example_run(folder), Store(folder / "results"), None)
        []
    """
    found = [] if not run.hypotheses else list(_uncorrected(run, store, registered))
    cells = corrected_together([(each.metric, each.cell) for each in found if each.cell is not None], further=further)
    corrected = iter(cells)
    judged = [each if each.cell is None else replace(each, cell=next(corrected)) for each in found]
    return [replace(each, verdict=verdict(each.hypothesis, each.metric, each.cell)) for each in judged]


def _uncorrected(run: Run, store: Store, registered: Registration | None) -> Iterator[Finding]:
    """Yield the comparison of each hypothesis, before correction."""
    groups = records_of_strategies(run, store)
    for hypothesis in run.hypotheses:
        task = loading.task(run, hypothesis.task)
        metric = next(each for each in task.metrics if each.name == hypothesis.metric or not hypothesis.metric)
        against = hypothesis.against or run.compared_with
        for model in [hypothesis.model] if hypothesis.model else run.models:
            values: dict[str, Mapping[str, float | None]] = {}
            for chain in (against, hypothesis.chain):
                samples = samples_of(task, groups.get((model, hypothesis.task, chain), []))
                values[chain] = {key: each[metric.name] for key, each in samples.items() if metric.name in each}
            cell = cells_of_metric(metric, values, against).get(hypothesis.chain) if all(values.values()) else None
            cell = cell if cell is not None and cell.comparison is not None else None
            holds = registered is not None and registered.holds(hypothesis, run)
            yield Finding(hypothesis=hypothesis, model=model, metric=metric, cell=cell, registered=holds, verdict="")


def verdict(hypothesis: HypothesisEntry, metric: Metric, cell: Cell | None) -> str:
    """Return the verdict on a hypothesis.

    Returns:
        ``supported``: the difference is shown in the expected direction, and its interval lies beyond the smallest
        difference of interest, if there is one; ``supported, may be smaller than X``: the interval does not;
        ``contradicted``: the opposite is shown; ``no difference of interest``: the interval lies between minus and plus
        the smallest difference of interest; ``not shown``: none of these; ``not tested``: there are no results.

    Examples:
        >>> from logitkit.bench.report.cells import cells_of_metric
        >>> metric = Metric(name="loss", better="lower", unit="nats")
        >>> values = {"plain": {str(n): 1.0 for n in range(9)}, "cfg": {str(n): 0.5 + n / 99 for n in range(9)}}
        >>> cell = cells_of_metric(metric, values, "plain")["cfg"]
        >>> verdict(HypothesisEntry(chain="cfg", task="words", smallest=0.2), metric, cell)
        'supported'
        >>> verdict(HypothesisEntry(chain="cfg", task="words", expect="worse"), metric, cell)
        'contradicted'
    """
    if cell is None or cell.comparison is None:
        return "not tested"
    comparison, smallest = cell.comparison, hypothesis.smallest
    shown = comparison.conclusion(metric.better) != "not shown"
    low, high = comparison.low, comparison.high
    upwards = comparison.difference > 0
    if hypothesis.expect != "different":
        upwards = (metric.better == "higher") == (hypothesis.expect == "better")
    if not upwards:
        low, high = -high, -low  # from here on, positive is what was expected
    if shown and low > 0:
        return "supported" if low >= smallest else f"supported, may be smaller than {smallest:g}"
    if shown:
        return "contradicted"
    return "no difference of interest" if -smallest < low and high < smallest else "not shown"
