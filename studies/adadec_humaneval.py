"""HumanEval under plain decoding and AdaDec: one comparison, which tests what `studies.guided_code` found on MBPP.

    python -m studies.adadec_humaneval --allow-code-execution --out adadec_humaneval.jsonl

The plan, written before an answer was judged: the setting of AdaDec was chosen on problems of MBPP, so that all
problems of HumanEval are held out; all of them are decoded, with at most 256 tokens, and judged once. Without
`--allow-code-execution` the answers are only written, and a later run judges them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli.options import Engine
from studies import command
from studies.evidence import Page, publish
from studies.guided_answers import Records, humaneval, item_of
from studies.guided_cost import control_line, cost_table
from studies.guided_records import CONTROL, answered, by_arm
from studies.guided_report import changes_table, comparisons, judged_table, placeholders_table, programs
from studies.guided_run import GuidedRun
from studies.records import resumed_records
from studies.units import placed

ADADEC = "adadec(threshold=1.0)"


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    both = answered(records, None, ["", ADADEC])
    of_arm = by_arm(both)
    arms, chosen = {"plain": of_arm[""], "adadec": of_arm[ADADEC]}, {"adadec": ADADEC}
    tables = {"control": control_line(records)} if any(record["arm"] == CONTROL for record in records) else {}
    return tables | {
        "judged": judged_table(arms, chosen, "problems"),
        "comparison": comparisons(arms, chosen, [("adadec", "plain")]),
        "changes": changes_table(arms, chosen),
        "placeholders": placeholders_table(arms, chosen),
        "programs": programs(arms, chosen, most=2),
        "cost": cost_table(both, ["", ADADEC]),
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "qwen2.5-coder-1.5b",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens of an answer.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Problems decoded together.")] = 16,
    device: Annotated[str, typer.Option(help="Device of the model: cpu, cuda, cuda:1, ...")] = "cpu",
    control: Annotated[
        bool, typer.Option("--control", help="Run AdaDec with an infinite threshold on every fourth batch.")
    ] = False,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Execute model-written code in a restricted process.")
    ] = False,
    out: Annotated[Path, typer.Option(help="File of results; answers in it are not repeated.")] = Path(
        "adadec_humaneval.jsonl"
    ),
    page: Page = None,
    engine: Engine = "local",
) -> None:
    """Generate the answers that are missing in the results file, and print the tables of all answers in it."""
    like = placed("adadec_humaneval", device, "bfloat16", engine)
    task = humaneval(data)
    settings = {"model": model, "max_new_tokens": max_new_tokens}
    records = resumed_records(out, settings, "adadec_humaneval")
    run = GuidedRun(task=task, out=out, settings=settings, records=records, like=like, batch=batch, engine=engine)
    names = [item_of(sample) for sample in task.samples]
    run.decode(["", ADADEC], names)
    if control:
        run.decode([CONTROL], [name for number, name in enumerate(names) if number // batch % 4 == 0])
    if not allow_code_execution:
        typer.echo(f"{out}: {len(records)} answers, which --allow-code-execution executes in a sandbox")
        return
    run.judge()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
