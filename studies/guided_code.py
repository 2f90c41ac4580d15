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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit import models
from logitkit.bench.tasks import MBPP
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from studies import command
from studies.evidence import Page, half_of, publish
from studies.guided_answers import Unit, answers, item_of, mbpp, passes, units
from studies.guided_records import CONTROL, SETTINGS, chosen_settings
from studies.guided_report import results
from studies.records import append_record, resumed_records, write_records
from studies.units import placed, run_units


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
    page: Page = None,
    engine: Engine = "local",
) -> None:
    """Generate the answers that are missing in the results file, and print the tables of all answers in it."""
    like = placed("guided_code", device, "bfloat16", engine)
    task = mbpp(data, problems)
    settings = {"model": model, "max_new_tokens": max_new_tokens}
    records = resumed_records(out, settings, "guided_code")
    load = functools.partial(models.load, model, like=like)
    job = functools.partial(_job, PerProcess(load), task, max_new_tokens)

    def keep(unit: Unit, found: list[dict[str, Any]]) -> None:
        for item, record in zip(unit[1], found, strict=True):
            records.append({"settings": settings, "arm": unit[0], "item": item, "half": half_of(item), **record})
            append_record(out, records[-1])

    def decode(arms: Sequence[str], items: Sequence[str]) -> None:
        run_units(job, list(units(records, arms, items, batch)), keep, engine=engine, title="batches")

    names = [item_of(sample) for sample in task.samples]
    halves = {half: [n for n in names if half_of(n) == half] for half in ("development", "held-out")}
    if tune:
        decode(["", *SETTINGS], halves["development"])
    if allow_code_execution:
        judge(task, records, out, engine)
    chosen = list(SETTINGS) if tune and not allow_code_execution else list(chosen_settings(records).values())
    decode(["", *chosen, *([CONTROL] if control else [])], halves["held-out"] if tune else names)
    if not allow_code_execution:
        typer.echo(f"{out}: {len(records)} answers, which --allow-code-execution executes in a sandbox")
        return
    judge(task, records, out, engine)
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
