"""Quality of ensembles: accuracy and log-loss of single models, plain means and CoRE on the same items.

Every model reads every item once, and all methods answer from the same logits. Items in the results file are not read
again, so an interrupted run can be resumed.

- ``lambada``: the last word of a passage. It counts as right if every token of it is the most probable one.
- ``arc``: multiple choice. The answer is the option with the highest log-probability per byte.

Log-loss is in nats per word (lambada), or in nats per byte of the right option (arc). A method that truncates
distributions to their most probable tokens can make the right answer impossible. Its log-loss is then infinite, and
the table shows the number of such items; the same method with ``topk=0`` is in another row.

    python -m studies.ensemble_quality lambada --helper gemma-3-270m --items 300 --out results.jsonl
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit.errors import UnknownNameError
from logitkit.progress import progress_bar
from studies import command
from studies.ensemble_members import EnsembleMembers
from studies.ensemble_methods import NOISE, MethodComparison
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.scored_items import TASKS
from studies.tables import markdown_table


def table(records: list[dict[str, Any]], task: str) -> str:
    """Return accuracy and log-loss with 95 % intervals, and the paired differences to the main model."""
    labels = list(records[0]["answers"])
    metrics = np.array([[_metrics(record, label, task) for label in labels] for record in records])
    right, loss = 100 * metrics[..., 0], metrics[..., 1]
    rows = []
    for place, label in enumerate(labels):
        cells = [
            interval_text(bootstrap_interval(right[:, place]), ".1f"),
            interval_text(bootstrap_interval(right[:, place] - right[:, 0]), "+.1f"),
        ]
        if np.isfinite(loss[:, place]).all():
            cells.append(interval_text(bootstrap_interval(loss[:, place]), ".3f"))
            cells.append(interval_text(bootstrap_interval(loss[:, place] - loss[:, 0]), "+.3f"))
        else:
            cells += [f"inf on {np.isinf(loss[:, place]).sum()} items", ""]
        rows.append([label, *cells])
    unit = "nats/word" if task == "lambada" else "nats/byte"
    headings = [f"{task}, {len(records)} items", "accuracy, %", "minus the main model", f"log-loss, {unit}"]
    return markdown_table([*headings, "minus the main model"], rows)


def noise_table(records: list[dict[str, Any]]) -> str:
    """Return the accuracy that noise in the alignment costs each method, in points, paired, with 95 % intervals."""
    noisy = [label for label in records[0]["answers"] if label.endswith(" % noise")]

    def right(label: str) -> np.ndarray[Any, Any]:
        """Return 100 for each item that a method has right, else 0."""
        return np.array([100 * _metrics(record, label, "lambada")[0] for record in records])

    rows = []
    for clean in dict.fromkeys(label.rpartition(", ")[0] for label in noisy):
        losses = [right(f"{clean}, {noise} % noise") - right(clean) for noise in NOISE]
        rows.append([clean, *(interval_text(bootstrap_interval(loss), "+.1f") for loss in losses)])
    return markdown_table(["accuracy lost to noise, points", *(f"{noise} %" for noise in NOISE)], rows)


def _metrics(record: dict[str, Any], label: str, task: str) -> tuple[float, float]:
    """Return whether the answer of a method is right, and its log-loss."""
    answer, sizes, right = record["answers"][label], record["bytes"], record["right"]
    logp = [value if value is not None else -math.inf for value in answer["logp"]]
    if task == "lambada":
        return float(answer["greedy"][0]), -logp[0]
    per_byte = [value / size for value, size in zip(logp, sizes, strict=True)]
    return float(int(np.argmax(per_byte)) == right), -per_byte[right]


def main(
    task: Annotated[str, typer.Argument(help="lambada or arc.")],
    data: Annotated[Path, typer.Option(help="Folder of the data files.")] = Path("../shared/data"),
    main: Annotated[str, typer.Option(help="Name of the main model.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="A helper: a known model or a folder; repeatable.")] = None,
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 300,
    out: Annotated[Path, typer.Option(help="File of results, one line per item; items in it are not repeated.")] = Path(
        "quality.jsonl"
    ),
    minutes: Annotated[float, typer.Option(help="Stop after this time; run the command again to resume.")] = math.inf,
) -> None:
    """Answer the items that are missing in the results file, and print the tables of all items in it."""
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    chosen = list(TASKS[task](data))
    order = np.random.default_rng(0).permutation(len(chosen))[:items].tolist()
    done = {record["item"]: record for record in resumed_records(out, None, "ensemble_quality")}
    todo = [number for number in order if number not in done]
    end = time.monotonic() + 60 * minutes
    if todo:
        comparison = MethodComparison(EnsembleMembers.load(main, helper or ["gemma-3-270m"]), task)
        with progress_bar(task, total=len(todo)) as bar:
            for number in todo:
                if time.monotonic() > end:
                    break
                record = {"item": number, **comparison.answer(chosen[number])}
                # JSON has no infinity.
                done[number] = json.loads(json.dumps(record).replace("-Infinity", "null"))
                append_record(out, done[number])
                bar.advance()
    records = [done[number] for number in order if number in done]
    typer.echo(table(records, task))
    if task == "lambada":
        typer.echo(f"\n{noise_table(records)}")


if __name__ == "__main__":
    command.run(main)
