"""``logitkit bench power``: how many items a difference needs, and which difference a number of items shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli.bench_report import data_folder, finished_run, require_statistics
from logitkit.cli.json_output import divert, print_json
from logitkit.cli.rendering import print_line, print_remark, print_table
from logitkit.errors import ParameterError, UnknownNameError
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logitkit.bench.execution.store import Record
    from logitkit.bench.report.power import Spread
    from logitkit.bench.tasks.task import Metric, Task

EXAMPLES = (
    "logitkit bench power --discordant 0.2 --difference 0.05",
    "logitkit bench power --accuracy 0.60 --other 0.65 --comparisons 5",
    "logitkit bench power --deviation 0.9 --difference 0.1 --items 200",
    "logitkit bench power run.yaml --metric loss --difference 0.1",
)
ITEMS = (100, 200, 400, 1000)
POWERS = (0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A spread for which the tables have rows, with the differences that its items are asked for."""

    name: str
    spread: Spread
    differences: tuple[float, ...]


# Over 40 lines: each option of the command is a parameter.
def power(
    file: Annotated[
        Path | None, typer.Argument(help="A run file whose results are the pilot. Without it, options give the spread.")
    ] = None,
    difference: Annotated[
        list[float] | None, typer.Option(help="A difference to be shown, in the unit of the metric. Repeatable.")
    ] = None,
    items: Annotated[
        list[int] | None, typer.Option(min=1, max=10_000_000, help="A number of items. Repeatable.")
    ] = None,
    comparisons: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of comparisons corrected for together; default: the hypotheses of FILE, or its comparisons, "
            "or 1 without FILE.",
        ),
    ] = None,
    power: Annotated[
        list[float] | None, typer.Option(help="Probability that the difference is shown; default 0.8 and 0.9.")
    ] = None,
    discordant: Annotated[
        float | None, typer.Option(help="Share of items on which one strategy is right and the other wrong.")
    ] = None,
    accuracy: Annotated[float | None, typer.Option(min=0, max=1, help="Expected accuracy of one strategy.")] = None,
    other: Annotated[float | None, typer.Option(min=0, max=1, help="Expected accuracy of the other strategy.")] = None,
    deviation: Annotated[
        float | None, typer.Option(help="Standard deviation of the paired differences of a metric such as a loss.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the pilot's results.")] = None,
    chain: Annotated[list[str] | None, typer.Option(help="A chain of the pilot; default: all. Repeatable.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task of the pilot; default: all. Repeatable.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="A metric of the pilot; default: the main one of the task.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder with the data of the pilot's tasks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", callback=divert, help="Print JSON.")] = False,
) -> None:
    """Plan the number of items: paired accuracies (McNemar's test) or paired means, for a power of 0.8 and 0.9."""
    require_statistics("bench power")
    given = {"--discordant": discordant, "--accuracy": accuracy, "--deviation": deviation}
    sources = [name for name, value in {"FILE": file, **given}.items() if value is not None]
    if len(sources) != 1:
        rule = "one of FILE, --discordant, --accuracy with --other, and --deviation"
        raise ParameterError("bench power", "the spread", rule, " and ".join(sources) or "none")
    if (accuracy is None) != (other is None) or (accuracy is not None and accuracy == other):
        raise ParameterError("bench power", "--accuracy and --other", "two different accuracies", (accuracy, other))
    differences = tuple(difference or ())
    for each in differences:
        if not 0 < each < math.inf:
            raise ParameterError("bench power", "--difference", "a finite number > 0", each)
    if file is not None:
        with data_folder("bench power", data):
            cases, corrected = _of_pilot(file, out, chain, task, metric, differences)
            comparisons = comparisons or corrected
    elif accuracy is not None and other is not None:
        cases = _of_accuracies(accuracy, other, differences)
    else:
        cases = _of_spread(discordant, deviation, differences)
    numbers, powers = tuple(items or ITEMS), tuple(power or POWERS)
    if as_json:
        print_json(_as_data(cases, numbers, powers, comparisons or 1))
        return
    _print_tables(cases, numbers, powers, comparisons or 1)


def _of_spread(discordant: float | None, deviation: float | None, differences: tuple[float, ...]) -> list[Case]:
    """Return the case of a spread that the options give."""
    from logitkit.bench.report.power import Spread

    spread = Spread(discordant=discordant, deviation=deviation)
    for difference in differences:
        spread.check(difference)
    return [Case(name=_described(spread), spread=spread, differences=differences)]


def _of_accuracies(accuracy: float, other: float, differences: tuple[float, ...]) -> list[Case]:
    """Return the two extreme cases of two accuracies: answers that differ as little as can be, and independent ones."""
    from logitkit.bench.report.power import Spread, discordant_shares

    smallest, independent = discordant_shares(accuracy, other)
    wanted = differences or (round(abs(accuracy - other), 12),)
    named = {"one right where the other is": smallest, "independent answers": independent}
    return [
        Case(
            name=f"{name}: {_described(Spread(discordant=share))}", spread=Spread(discordant=share), differences=wanted
        )
        for name, share in named.items()
    ]


def _of_pilot(
    file: Path,
    out: Path | None,
    chains: list[str] | None,
    tasks: list[str] | None,
    metric: str | None,
    differences: tuple[float, ...],
) -> tuple[list[Case], int]:
    """Return the cases of a pilot, for each task and strategy its spread and a cautious one, and its comparisons."""
    from logitkit.bench.config import loading
    from logitkit.bench.report.pairs import comparisons_of, records_of_strategies

    run, store = finished_run("bench power", file, out)
    for kind, names, known in (("chain", chains, run.chains), ("task", tasks, run.tasks)):
        for name in names or []:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    groups = records_of_strategies(run, store)
    cases: list[Case] = []
    for (model, name, chain), records in groups.items():
        wanted = name in (tasks or [name]) and chain in (chains or [chain])
        if wanted and records and chain != run.compared_with:
            measured = _measured(loading.task(run, name), metric, groups[model, name, run.compared_with], records)
            cases += _pilot_cases(f"{chain}, {name}, {model}", *measured, differences)
    if not cases:
        found, way_out = str(store.folder), f"run: logitkit bench {file}"
        raise ParameterError("bench power", "--out", "a folder with results of two strategies", found, way_out)
    return cases, comparisons_of(run, groups)


def _measured(
    task: Task, metric: str | None, base: Sequence[Record], other: Sequence[Record]
) -> tuple[Metric, list[float], list[float]]:
    """Return the metric, and its values of the baseline and of a strategy on the items that both have."""
    from logitkit.bench.report.pairs import finite_pairs, samples_of

    metrics = {each.name: each for each in task.metrics}
    if metric is not None and metric not in metrics:
        raise UnknownNameError("metric", metric, metrics)
    chosen = metrics[metric] if metric else task.metrics[0]
    return chosen, *finite_pairs(samples_of(task, base), samples_of(task, other), chosen.name)


def _pilot_cases(
    place: str, metric: Metric, base: list[float], other: list[float], differences: tuple[float, ...]
) -> list[Case]:
    """Return the two cases of one strategy, or none where the differences of the pilot do not vary."""
    from logitkit.bench.report.power import pilot_spread

    place += f": log of {metric.name}" if metric.exponent else f": {metric.name}"
    try:
        spreads = pilot_spread(base, other)
    except ParameterError as error:
        print_remark(f"{place}: left out, {error.parameter} must be {error.rule}, got {error.value}")
        return []
    titles = [f"{place}, {which} of {len(base)} items" for which in ("pilot", "cautious")]
    return [
        Case(name=f"{title}, {_described(spread)}", spread=spread, differences=differences)
        for title, spread in zip(titles, spreads, strict=True)
    ]


def _described(spread: Spread) -> str:
    """Return a spread in words."""
    if spread.discordant is not None:
        return f"{100 * spread.discordant:.3g} % of items differ"
    return f"standard deviation {spread.deviation:.3g}"


def _as_data(cases: list[Case], items: tuple[int, ...], powers: tuple[float, ...], comparisons: int) -> dict[str, Any]:
    """Return the figures of both tables as plain data."""
    rows = []
    for case in cases:
        spread = case.spread
        needed = [
            {"difference": d, "power": p, "items": _needed(spread, d, p, comparisons)}
            for d in case.differences
            for p in powers
        ]
        shown = [
            {"items": n, "power": p, "difference": spread.smallest_difference(n, power=p, comparisons=comparisons)}
            for n in items
            for p in powers
        ]
        sizes = {"discordant": spread.discordant, "deviation": spread.deviation}
        rows.append({"name": case.name, **sizes, "items_needed": needed, "smallest_difference": shown})
    return {"comparisons": comparisons, "cases": rows}


def _needed(spread: Spread, difference: float, power: float, comparisons: int) -> int | None:
    """Return the items that a difference needs, None for a difference that the spread of a pilot makes impossible."""
    if spread.discordant is not None and difference > spread.discordant:
        return None
    return spread.items_needed(difference, power=power, comparisons=comparisons)


def _print_tables(cases: list[Case], items: tuple[int, ...], powers: tuple[float, ...], comparisons: int) -> None:
    """Print the items that each difference needs, the smallest differences that items show, and what both mean."""
    from logitkit.bench.report.power import MOST_ITEMS

    columns = [f"power {p:g}" for p in powers]
    data = _as_data(cases, items, powers, comparisons)["cases"]
    layouts = [
        ("Items needed", "difference", "items_needed", "items", f"no number of items up to {MOST_ITEMS:,} shows it"),
        ("Smallest difference that is shown", "items", "smallest_difference", "difference", "no difference is shown"),
    ]
    for title, by, part, wanted, dash in layouts:
        table = FittedTable("answers", by, *columns, title=title, numbers=[by, *columns])
        for case in data:
            found = case[part]
            for start in range(0, len(found), len(powers)):
                row = found[start : start + len(powers)]
                table.add_row(case["name"], f"{row[0][by]:g}", *(_figure(each[wanted]) for each in row))
        if table.rows:
            print_table(table)
            if any(each[wanted] is None for case in data for each in case[part]):
                print_line(f"-: {dash} with this power.")
            print_line("")
    plural = "comparison" if comparisons == 1 else "comparisons"
    print_line(
        f"Power: the probability that the report shows a true difference, by {_tests(cases)}, two-sided at 0.05, "
        f"corrected for {comparisons} {plural}."
    )


def _tests(cases: list[Case]) -> str:
    """Return the tests of the cases in words; a pilot can have both."""
    mcnemar, paired = "McNemar's exact test", "the paired t-test, which approximates the test by sign flips"
    kinds = {case.spread.discordant is not None for case in cases}
    if len(kinds) > 1:
        return f"{mcnemar} for answers that are right or wrong, and by {paired}, for numbers"
    return mcnemar if True in kinds else paired


def _figure(value: float | None) -> str:
    """Return a number of items or a difference; a dash where there is none."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
