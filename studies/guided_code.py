"""MBPP under plain decoding, USCD, MTI and AdaDec: pass@1 of greedy answers.

    python -m studies.guided_code --problems 32 --allow-code-execution --out guided_code.jsonl

All three methods act where the next token is uncertain. By default the first setting of each method is judged on all
problems. With `--tune` each method has two settings on the development half of the problems, and the one that passes
more is judged on the held-out half. The programs run in the sandbox of the benchmark. Without
`--allow-code-execution` the answers are only written, with `--tune` those of both settings, and a later run judges
them. Answers in the results file are not generated again, and no verdict in it is repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli.options import Engine
from studies import command
from studies.evidence import Page, half_of, publish
from studies.guided_answers import item_of, mbpp
from studies.guided_records import CONTROL, SETTINGS, chosen_settings
from studies.guided_report import results
from studies.guided_run import GuidedRun
from studies.records import resumed_records
from studies.units import placed


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
    run = GuidedRun(task=task, out=out, settings=settings, records=records, like=like, batch=batch, engine=engine)
    names = [item_of(sample) for sample in task.samples]
    halves = {half: [n for n in names if half_of(n) == half] for half in ("development", "held-out")}
    if tune:
        run.decode(["", *SETTINGS], halves["development"])
    if allow_code_execution:
        run.judge()
    chosen = list(SETTINGS) if tune and not allow_code_execution else list(chosen_settings(records).values())
    run.decode(["", *chosen, *([CONTROL] if control else [])], halves["held-out"] if tune else names)
    if not allow_code_execution:
        typer.echo(f"{out}: {len(records)} answers, which --allow-code-execution executes in a sandbox")
        return
    run.judge()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
