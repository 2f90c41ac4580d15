"""What the report says about the design of a run: its items, how settings were chosen, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from logitkit.bench.config.run import Run
from logitkit.bench.execution.unit import samples
from logitkit.bench.report.summary import Summary
from logitkit.bench.report.wording import agreeing, counted
from logitkit.registry.chain import Chain

CHANGES = 12  # changes since the registration that are listed
SPLITS = {"development": "development split", "held_out": "held-out split"}


def design(summary: Summary) -> list[str]:
    """Return sentences about the design of a run, the most general first; empty without comparisons.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> run = example_run(pathlib.Path(tempfile.mkdtemp()))
        >>> design(Summary(run=run, tables=[], costs={}, done=4, planned=4, comparisons=3))
        ["Comparisons with the baseline: 3. Holm's correction is over all of them.", 'No run file was registered ...']
    """
    if not summary.comparisons:
        return []
    about = [*_unfinished(summary), _tried(summary), *_splits(summary.run), *_choice(summary), *_budgets(summary.run)]
    return [*about, *_registered(summary)]


def _tried(summary: Summary) -> str:
    """Return the number of comparisons, and over which of them the correction is."""
    which = f"Comparisons with the baseline: {summary.comparisons}."
    if summary.run.correction == "task":
        return f"{which} Holm's correction is over the strategies, for each task and metric separately."
    if summary.further:
        return f"{which} Holm's correction is over them and over {summary.further} by which the settings were chosen."
    return f"{which} Holm's correction is over all of them."


def _unfinished(summary: Summary) -> list[str]:
    """Return a warning if answers are missing; empty for a finished run."""
    if summary.done >= summary.planned:
        return []
    count = summary.planned - summary.done
    return [
        f"Warning: the run is not finished, {counted(count, 'answer')} {agreeing(count, 'is')} missing. To stop when a "
        "difference is shown makes differences look too good."
    ]


def _registered(summary: Summary) -> list[str]:
    """Return when the run file was registered, what changed since, and which comparisons are exploratory."""
    found, tested = summary.registration, summary.findings
    known = [each for each in tested if each.registered]
    rest = "all comparisons are exploratory"
    if tested:
        rest = f"{len(known)} of {counted(len(tested), 'hypothesis')} {agreeing(len(known), 'is')} pre-registered, and "
        rest += "all other comparisons are exploratory" if known else "all comparisons are exploratory"
    if found is None:
        return [f"No run file was registered before the first answer: {rest}."]
    if not found.in_time:
        return [f"The run file was registered on {found.time}, after {counted(found.records, 'answer')}: {rest}."]
    copy = f"The run file was registered on {found.time}, before the first answer"
    copy += f" (registered.yaml, SHA-256 {found.digest})"
    sentences = [f"{copy}; {rest}."] if tested else [f"{copy}. It has no hypotheses: {rest}."]
    if not found.changes:
        return [*sentences, "Nothing changed since the registration."]
    more = len(found.changes) - CHANGES
    listed = "; ".join(found.changes[:CHANGES]) + (f"; {counted(more, 'change')} more" if more > 0 else "")
    return [*sentences, f"Changed since the registration: {listed}."]


def _splits(run: Run) -> list[str]:
    """Return a sentence for each task with a split."""
    return [
        f"{name}: the {SPLITS[entry.split]}, {counted(len(samples(run, name)), 'item')} (seed {entry.split_seed}, "
        f"{100 * entry.development_share:.3g} % of the items are for development)."
        for name, entry in run.tasks.items()
        if entry.split is not None
    ]


def _choice(summary: Summary) -> list[str]:
    """Return how settings were chosen, and whether their figures are of the items by which they were chosen."""
    run, sentences = summary.run, []
    several = {name: len(chains) for name, chains in run.strategies().items() if len(chains) > 1}
    if several:
        tasks = [name for name, entry in run.tasks.items() if entry.split != "development"]
        if tasks:
            sentences.append(
                f"Several settings ({_listed(several)}) are compared on the items of this report, so the figures of "
                "the best setting of each strategy are too good: choose it on the development split, and report the "
                "held-out split."
            )
        else:
            sentences.append(f"A tuning run: it compares settings ({_listed(several)}) and is no final comparison.")
    if run.tuned is not None:
        by = f"by {run.tuned.metric}" if run.tuned.metric else "by the main metric of each task"
        sentences.append(f"The settings were chosen in run {run.tuned.run} {by}, among: {_listed(run.tuned.settings)}.")
        for name, count in summary.used.items():
            total = len(samples(run, name))
            about = "none of its items was" if not count else f"{count} of its {counted(total, 'item')} were"
            worse = ", so its figures are too good" if count else ""
            sentences.append(f"{name}: {about} used to choose the settings{worse}.")
    return sentences


def _budgets(run: Run) -> list[str]:
    """Return a warning that names the strategies with fewer settings than others; empty for equal budgets.

    A strategy without parameters has nothing to tune, so it is left out.
    """
    tried = run.tuned.settings if run.tuned else {name: len(chains) for name, chains in run.strategies().items()}
    chains = {entry.strategy or name: entry.chain for name, entry in run.chains.items()}
    tunable = {name: count for name, count in tried.items() if name in chains and has_parameters(chains[name])}
    most = max(tunable.values(), default=1)
    fewer = {name: count for name, count in tunable.items() if count < most}
    if not fewer:
        return []
    best = {name: count for name, count in tunable.items() if count == most}
    return [f"Warning: unequal budgets. Fewer settings were tried of {_listed(fewer)} than of {_listed(best)}."]


def has_parameters(chain: Any) -> bool:
    """Return whether a step of a chain has a numeric parameter, which could be tuned.

    Examples:
        >>> has_parameters("cfg(1.5)"), has_parameters("byte_boundary()"), has_parameters("")
        (True, False, False)
    """
    kinds = [field.annotation for spec in Chain(chain).specs for field in spec.model.model_fields.values()]
    return any(number in (kind, *get_args(kind)) for kind in kinds for number in (int, float))


def _listed(counts: Mapping[str, int]) -> str:
    """Return names with numbers of settings."""
    return ", ".join(f"{name} {counted(count, 'setting')}" for name, count in counts.items())
