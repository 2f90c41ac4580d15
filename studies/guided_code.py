"""MBPP under plain decoding, USCD, MTI and AdaDec: pass@1 of greedy answers.

    python -m studies.guided_code --problems 32 --allow-code-execution --out guided_code.jsonl

All three methods act where the next token is uncertain. By default the first setting of each method is judged on all
problems. With `--tune` each method has two settings on the development half of the problems, and the one that passes
more is judged on the held-out half. The programs run in the sandbox of the benchmark. Without
`--allow-code-execution` the answers are only written, with `--tune` those of both settings, and a later run judges
them. Answers in the results file are not generated again, and no verdict in it is repeated.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from logitkit import models
from logitkit.bench.report import Spread, holm, mcnemar
from logitkit.bench.tasks import MBPP
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from studies.evidence import POWER, half_of, publish
from studies.guided_answers import Records, Unit, answers, item_of, mbpp, passes, units
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records, write_records
from studies.tables import markdown_table
from studies.units import run_units

METHODS = {  # the settings of each method, the one that is judged without tuning first
    "uscd": ("uscd()", "uscd(gate=0.626)"),
    "mti": ("mti()", "mti(threshold=2.0)"),
    "adadec": ("adadec(threshold=2.0)", "adadec(threshold=1.0)"),
}
COMPARED = (("uscd", "plain"), ("mti", "plain"), ("adadec", "plain"), ("uscd", "mti"), ("uscd", "adadec"))
SMALLEST = 10  # points; the difference for which the table says how many problems would show it
CONTROL = "adadec(threshold=inf)"  # plain decoding in the loop of the search
ByArm = dict[str, list[dict[str, Any]]]  # the records of each arm, problem by problem


def chosen_settings(records: Records) -> dict[str, str]:
    """Return for each method the setting that passes most development problems; of equal ones the first.

    Problems that a setting has not answered do not count, so that it is the first setting if nothing was tuned.
    """
    solved = {setting: 0 for group in METHODS.values() for setting in group}
    for record in answered(records, "development", solved):
        if record["arm"] in solved and "passed" in record:
            solved[record["arm"]] += record["passed"]
    return {method: max(group, key=solved.__getitem__) for method, group in METHODS.items()}


def answered(records: Records, half: str | None, arms: Iterable[str]) -> Records:
    """Return the records of the problems of a half, or of all, that all these arms have answered."""
    by_item: dict[str, set[str]] = {}
    for record in records:
        if half in (None, record["half"]):
            by_item.setdefault(record["item"], set()).add(record["arm"])
    return [r for r in records if by_item.get(r["item"], set()) >= set(arms)]


def by_arm(records: Records) -> ByArm:
    """Return the records of each arm, the problems in the same order."""
    found: ByArm = {}
    for record in sorted(records, key=lambda record: str(record["item"])):
        found.setdefault(record["arm"], []).append(record)
    return found


def points(records: Records) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return 100 for each answer that passes, else 0."""
    return np.array([100.0 * record["passed"] for record in records])


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    chosen = chosen_settings(records)
    settings = [setting for group in METHODS.values() for setting in group]
    development = answered(records, "development", ["", *settings])
    judged = answered(records, "held-out" if development else None, ["", *chosen.values()])
    of_arm = by_arm(judged)
    arms = {"plain": of_arm[""]} | {method: of_arm[chosen[method]] for method in METHODS}
    tables = {"development": development_table(by_arm(development))} if development else {}
    return tables | {
        "judged": judged_table(arms, chosen, "held-out problems" if development else "problems"),
        "comparisons": comparisons(arms, chosen),
        "changes": changes_table(arms, chosen),
        "programs": programs(arms, chosen),
    }


def development_table(arms: ByArm) -> str:
    """Return how many development problems each setting passes."""
    settings = ["", *(setting for group in METHODS.values() for setting in group)]
    rows = []
    for setting in settings:
        own = arms[setting]
        solved, others = sum(record["passed"] for record in own), changed(own, arms[""])
        guided = f"{_guided(own):.3f}"
        rows.append([f"`{setting}`" if setting else "plain", f"{solved} of {len(own)}", f"{others}", guided])
    return markdown_table(["setting", "development problems passed", "answers changed", "guided steps"], rows)


def changed(own: Records, plain: Records) -> int:
    """Return how many answers differ from those of plain decoding."""
    return sum(one["text"] != other["text"] for one, other in zip(own, plain, strict=True))


def _guided(own: Records) -> float:
    """Return the share of the steps of all answers at which a method acted."""
    steps = [record["tokens"] for record in own]
    return float(np.average([record["guided"] for record in own], weights=steps))


def judged_table(arms: ByArm, chosen: dict[str, str], items: str) -> str:
    """Return pass@1, guided steps and lengths of every arm on the problems that are judged.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
        items: what the problems are.
    """
    rows = []
    for method, own in arms.items():
        share = interval_text(bootstrap_interval(points(own)), ".1f")
        limit = own[0]["settings"]["max_new_tokens"]
        cut = sum(record["tokens"] >= limit for record in own)
        lengths = [f"{np.mean([record['tokens'] for record in own]):.0f}", f"{cut}"]
        name = f"`{chosen[method]}`" if method in chosen else method
        rows.append([name, share, f"{_guided(own):.3f}", *lengths])
    headings = [f"{len(arms['plain'])} {items}", "pass@1, %", "guided steps", "tokens an answer", "cut off"]
    return markdown_table(headings, rows)


def comparisons(arms: ByArm, chosen: dict[str, str]) -> str:
    """Return the paired differences, with exact McNemar tests corrected by Holm, and what they could have seen.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
    """
    pairs = [(points(arms[first]), points(arms[second])) for first, second in COMPARED]
    flips = [(int((one > other).sum()), int((one < other).sum())) for one, other in pairs]
    ps = holm([mcnemar(gained, lost) for gained, lost in flips])
    rows = []
    for (first, second), (one, other), (gained, lost), p in zip(COMPARED, pairs, flips, ps, strict=True):
        share = (gained + lost) / len(one)
        spread = Spread(discordant=share) if share else None
        seen = spread.smallest_difference(len(one), power=POWER, comparisons=len(COMPARED)) if spread else None
        needed = None
        if spread and 100 * share >= SMALLEST:
            needed = spread.items_needed(SMALLEST / 100, power=POWER, comparisons=len(COMPARED))
        rows.append(
            [
                f"{chosen.get(first, first)} - {chosen.get(second, second)}",
                "points passed",
                str(len(one)),
                interval_text(bootstrap_interval(one - other), "+.1f"),
                f"{p:.3f}",
                f"{100 * seen:.1f}" if seen else "none",
                str(needed or "impossible"),
            ]
        )
    headings = ["difference", "unit", "items", "mean, 95 %", "p (Holm)", f"seen with {100 * POWER:.0f} % power"]
    return markdown_table([*headings, f"problems for {SMALLEST} points"], rows)


def changes_table(arms: ByArm, chosen: dict[str, str]) -> str:
    """Return how many answers and verdicts each method changed against plain decoding.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
    """
    plain, rows = arms["plain"], []
    for method, setting in chosen.items():
        difference = points(arms[method]) - points(plain)
        flips = [str(int((difference > 0).sum())), str(int((difference < 0).sum()))]
        rows.append([f"`{setting}`", f"{changed(arms[method], plain)} of {len(plain)}", *flips])
    return markdown_table(["setting", "answers changed", "passes, plain does not", "plain passes, it does not"], rows)


def programs(arms: ByArm, chosen: dict[str, str], most: int = 3) -> str:
    """Return some held-out programs whose verdict a method changed, of different methods first.

    Args:
        arms: plain decoding and the methods.
        chosen: the setting of each method.
        most: largest number of programs.
    """
    found = []
    for method, setting in chosen.items():
        flipped = [
            (one, other)
            for one, other in zip(arms[method], arms["plain"], strict=True)
            if one["passed"] != other["passed"]
        ]
        for rank, (one, other) in enumerate(sorted(flipped, key=lambda pair: int(pair[0]["tokens"]))):
            verdict = "passes, plain does not" if one["passed"] else "does not pass, plain does"
            head = f"{one['item']}, `{setting}` ({verdict}). Plain decoding, then the method:"
            found.append((rank, f"{head}\n\n{_block(other['text'])}\n\n{_block(one['text'])}"))
    found.sort(key=lambda pair: pair[0])
    return "\n\n".join(text for _, text in found[:most]) or "No method changed a verdict."


def _block(text: str) -> str:
    """Return a program as a block of Markdown."""
    lines = [line.rstrip() for line in text.strip("\n").rstrip().split("\n")]
    return "\n".join(["```text", *lines, "```"])


def _job(loaded: PerProcess[tuple[Any, Any]], task: MBPP, tokens: int, unit: Unit) -> list[dict[str, Any]]:
    """Return the answers of a unit; see `answers`."""
    return answers(loaded.value, task, tokens, unit)


def judge(task: MBPP, records: list[dict[str, Any]], out: Path, engine: str) -> None:
    """Execute the answers that have no verdict, and write the verdicts into the results file."""
    of_answer: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if "passed" not in record:
            of_answer.setdefault((record["item"], record["text"]), []).append(record)

    def keep(answer: tuple[str, str], passed: bool) -> None:
        for record in of_answer[answer]:
            record["passed"] = passed

    if of_answer:
        try:
            run_units(functools.partial(passes, task), list(of_answer), keep, engine=engine, title="programs")
        finally:
            write_records(out, records)


def main(  # Over 40 lines: every option has a line of its own
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "qwen2.5-coder-1.5b",
    problems: Annotated[int, typer.Option(min=2, max=427, help="Number of problems.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens of an answer.")] = 80,
    batch: Annotated[int, typer.Option(min=1, help="Problems decoded together.")] = 16,
    device: Annotated[str, typer.Option(help="Device of the model: cpu, cuda, cuda:1, ...")] = "cpu",
    tune: Annotated[bool, typer.Option("--tune", help="Choose settings on the development half.")] = False,
    control: Annotated[bool, typer.Option("--control", help="Run AdaDec with an infinite threshold too.")] = False,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Execute model-written code in a restricted process.")
    ] = False,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path(
        "guided_code.jsonl"
    ),
    page: Annotated[Path | None, typer.Option(help="Page whose tables are replaced.")] = None,
    engine: Engine = "local",
) -> None:
    """Generate the answers that are missing in the results file, and print the tables of all answers in it."""
    task = mbpp(data, problems)
    settings = {"model": model, "max_new_tokens": max_new_tokens}
    records = resumed_records(out, settings, "guided_code")
    bfloat16 = types.SimpleNamespace(dtype=torch.bfloat16, device=device)
    load = functools.partial(models.load, model, like=bfloat16)
    job = functools.partial(_job, PerProcess(load), task, max_new_tokens)

    def keep(unit: Unit, found: list[dict[str, Any]]) -> None:
        for item, record in zip(unit[1], found, strict=True):
            records.append({"settings": settings, "arm": unit[0], "item": item, "half": half_of(item), **record})
            append_record(out, records[-1])

    def decode(arms: Sequence[str], items: Sequence[str]) -> None:
        run_units(job, list(units(records, arms, items, batch)), keep, engine=engine, title="batches")

    names = [item_of(sample) for sample in task.samples]
    halves = {half: [n for n in names if half_of(n) == half] for half in ("development", "held-out")}
    every = [setting for group in METHODS.values() for setting in group]
    if tune:
        decode(["", *every], halves["development"])
    if allow_code_execution:
        judge(task, records, out, engine)
    chosen = every if tune and not allow_code_execution else list(chosen_settings(records).values())
    decode(["", *chosen, *([CONTROL] if control else [])], halves["held-out"] if tune else names)
    if not allow_code_execution:
        typer.echo(f"{out}: {len(records)} answers, which --allow-code-execution executes in a sandbox")
        return
    judge(task, records, out, engine)
    publish(results(records), page)


if __name__ == "__main__":
    typer.run(main)
