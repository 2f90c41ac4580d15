"""Cost of USCD, MTI and AdaDec on programs, from answers that `studies.guided_code` wrote on a CPU.

    python -m studies.guided_code --problems 32 --control --allow-code-execution --out guided_code_cost.jsonl
    python -m studies.guided_cost guided_code_cost.jsonl --page guided_code.md

The arms take turns on the same batches. A results file of a GPU that other processes use says nothing about cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from logitkit.errors import FileFormatError
from studies import command
from studies.evidence import Page, publish
from studies.guided_answers import Records
from studies.guided_records import CONTROL, METHODS, answered, by_arm, changed
from studies.records import read_records
from studies.tables import markdown_table


def results(records: Records) -> dict[str, str]:
    """Return the table of costs, and how many plain answers AdaDec writes in its own loop."""
    arms = ["", *(group[0] for group in METHODS.values())]
    return {"cost": cost_table(records, arms), "control": control_line(records)}


def cost_table(records: Records, arms: Sequence[str]) -> str:
    """Return the seconds of an answer of each arm, plain decoding first, on the problems that all arms answered."""
    of_arm = by_arm(answered(records, None, arms))
    plain = np.mean([record["seconds"] for record in of_arm[""]])
    rows = []
    for arm in arms:
        seconds = np.mean([record["seconds"] for record in of_arm[arm]])
        tokens = np.mean([record["tokens"] for record in of_arm[arm]])
        name = f"`{arm}`" if arm else "plain"
        rows.append([name, f"{tokens:.0f}", f"{seconds:.1f}", f"{seconds / plain:.2f}"])
    headings = [f"{len(of_arm[''])} problems", "tokens an answer", "CPU seconds an answer", "times plain"]
    return markdown_table(headings, rows)


def control_line(records: Records) -> str:
    """Return how many plain answers AdaDec with an infinite threshold writes in its own loop."""
    both = by_arm(answered(records, None, ["", CONTROL]))
    same = len(both.get("", [])) - changed(both.get(CONTROL, []), both.get("", []))
    return f"`{CONTROL}` writes {same} of {len(both.get('', []))} plain answers."


def costed(path: Path) -> Records:
    """Return the records of a file that has what the tables need: problems that every arm and the control answered.

    Raises:
        FileFormatError: the file is of another study, or no problem has the answers of all arms.
    """
    records = read_records(path)
    arms = ["", *(group[0] for group in METHODS.values()), CONTROL]
    rule = f"guided_cost: {path} must be a results file of studies.guided_code"
    way_out = "run studies.guided_code with --control"
    for number, record in enumerate(records, 1):
        if missing := sorted({"arm", "item", "text", "tokens", "seconds"} - set(record)):
            raise FileFormatError(f"{rule}, got a record without {', '.join(missing)} in line {number}; {way_out}")
    if lacking := [arm or "plain decoding" for arm in arms if arm not in {record["arm"] for record in records}]:
        raise FileFormatError(f"{rule} with all arms, got none of {', '.join(lacking)}; {way_out}")
    if not answered(records, None, arms):
        raise FileFormatError(f"{rule} with a problem that all arms answered, got none; {way_out}")
    return records


def main(
    records: Annotated[Path, typer.Argument(help="File of results of studies.guided_code.")],
    page: Page = None,
) -> None:
    """Print the tables of cost and control."""
    publish(results(costed(records)), page)


if __name__ == "__main__":
    command.run(main)
