"""Quality of the next byte after a text that is cut at a random byte, by several ways of prompting.

Each way gives a distribution of the next byte. Reported are the share of cuts at which its most probable byte is the
true one, the mean log-loss in bits, and the difference of log-losses to byte_boundary, paired over cuts, each with a
95 % bootstrap interval. Token healing by transformers is greedy and writes one text, so it has an accuracy only. The
same texts, cut at the token boundary before the random cut, show how plain prompting does without a cut token.

    python -m studies.byte_quality ../shared/data --count 100
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from logitkit import models
from logitkit.progress import progress_bar
from studies import command
from studies.cut_prompts import CutPromptMethods
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.tables import markdown_table

AFTER = 40  # characters after a cut, in which the token that is cut ends
METHODS = (
    "plain prompt",
    "transformers token_healing",
    "hard mask",
    "byte_boundary",
    "cut at a token boundary, plain",
)


class CutText(NamedTuple):
    """A text that is cut: its kind (code or prose), the text before the cut, and the text after it."""

    kind: str
    text: str
    after: str


def cut_texts(folder: Path, count: int, seed: int) -> Iterator[CutText]:
    """Yield HumanEval solutions after their prompts, and prose, each cut at a random character."""
    generator = random.Random(seed)
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt") as lines:
        tasks = [json.loads(line) for line in lines]
    for task in generator.sample(tasks, min(count, len(tasks))):
        solution = task["canonical_solution"]
        place = generator.randrange(1, len(solution))
        yield CutText("code", (task["prompt"] + solution[:place])[-600:], solution[place : place + AFTER])
    prose = (folder / "pg996_don_quixote.txt").read_text(encoding="utf-8")
    for _ in range(count):
        place = generator.randrange(1000, len(prose) - 1)
        yield CutText("prose", prose[place - 400 : place], prose[place : place + AFTER])


def report(records: list[dict[str, Any]], kind: str, model: str) -> str:
    """Return the results of the cuts of one kind as Markdown."""
    cuts = [record for record in records if record["kind"] == kind]
    losses = {method: [cut["losses"][method] for cut in cuts] for method in cuts[0]["losses"]}
    rows = []
    for method in METHODS:
        hits = bootstrap_interval([bool(cut["hits"][method]) for cut in cuts])
        loss = interval_text(bootstrap_interval(losses[method]), ".2f") if method in losses else "-"
        rows.append([method, interval_text(hits, ".3f"), loss])
    lines = [
        f"{model}, {kind}, {len(cuts)} random cuts\n",
        markdown_table(["method", "next byte right", "log-loss, bits"], rows),
        "",
    ]
    for method in ("plain prompt", "hard mask"):
        pairs = zip(losses["byte_boundary"], losses[method], strict=True)
        difference = bootstrap_interval([exact - other for exact, other in pairs])
        lines.append(f"byte_boundary - {method}: {interval_text(difference, '.3f')} bits per cut\n")
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with HumanEval.jsonl.gz and pg996_don_quixote.txt.")],
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    count: Annotated[int, typer.Option(min=1, help="Number of texts of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the choice of texts and cuts.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File of results, one line per cut; it is resumed.")] = None,
) -> None:
    """Measure every method on random cuts, and print the tables."""
    settings = {"model": model, "count": count, "seed": seed}
    records = resumed_records(out, settings, "byte_quality")
    todo = list(cut_texts(folder, count, seed))[len(records) :]
    if todo:
        methods = CutPromptMethods(*models.load(model))
        with progress_bar("cuts", total=len(todo)) as bar:
            for kind, text, after in todo:
                records.append({"settings": settings, "kind": kind, **methods.evaluate(text, after)})
                append_record(out, records[-1])
                bar.advance()
    for kind in ("code", "prose"):
        typer.echo(report(records, kind, model))
    failed = sum(record["hits"]["transformers token_healing"] is None for record in records)
    typer.echo(f"transformers' token_healing raised an error on {failed} prompts; they count as wrong.")


if __name__ == "__main__":
    command.run(main)
