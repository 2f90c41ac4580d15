"""Log-loss of spans of books and programs under CoRE, GaC, UniTE and equal-weight means of two models.

    python -m studies.ensemble_pairs --items 120 --out ensemble_pairs.jsonl

Items are spans of books and of programs with the text before them. Both models read every item once, and all methods
answer from the same logits. Means and CoRE have four settings each, of which the one with the lowest loss on the
development items is judged on the held-out items; the settings as published are judged there too. Items in the results
file are not read again, and a run with more items adds the missing ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit.processors.ensemble import Ensemble
from logitkit.progress import progress_bar
from studies import command
from studies.ensemble_members import EnsembleMembers
from studies.ensemble_methods import MethodComparison
from studies.evidence import Half, Page, PairedDifferences, comparison_table, half_of, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.partial_words import book_texts, programs
from studies.records import append_record, resumed_records
from studies.scored_items import ScoredItem
from studies.tables import markdown_table

KINDS = ("prose", "code")
BEFORE, SPAN = 300, 24  # characters before a span, and of a span at least
WEIGHTS = (0.3, 0.5, 0.6, 0.7)  # of the main model, in a mean
MEANS = {weight: f"mean, main {weight:g}" for weight in WEIGHTS}
CORES: dict[str, dict[str, Any]] = {
    f"core, {kernel}, floor {floor:g}": {"kernel": kernel, "main_floor": floor}
    for kernel in ("rbf", "linear")
    for floor in (0.5, 0.0)
}
EQUAL, RELEASED = "mean, main 0.5", "core, rbf, floor 0.5"
TRUNCATED = ("mean of ten tokens, gac", "mean of ten tokens, unite", "core of ten tokens")
Records = Sequence[dict[str, Any]]


class PairedMethods(MethodComparison):
    """The methods of this study over one main model and one helper."""

    def _few_methods(self) -> Iterator[tuple[str, Any]]:
        """Yield the methods by label."""
        helpers = self._helpers("gac")
        for weight, label in MEANS.items():
            yield label, Ensemble(helpers=helpers, weights=[weight, 1 - weight])
        for label, parameters in CORES.items():
            yield label, self._core(helpers, topk=0, **parameters)
        yield TRUNCATED[0], Ensemble(helpers=helpers, topk=10)
        yield TRUNCATED[1], Ensemble(helpers=self._helpers("unite"), topk=10)
        yield TRUNCATED[2], self._core(helpers)


def spans(folder: Path, kind: str) -> Iterator[tuple[str, ScoredItem]]:
    """Yield named spans of one kind of text in the order of a hash of their names; one of a program."""
    texts = book_texts(folder) if kind == "prose" else programs(folder)
    found = []
    for name, before, text in texts:
        whole = before + text
        starts = [m.start() for m in re.finditer(r"(?<=\S) (?=\S)", whole) if len(before) <= m.start()]
        starts = [start for start in starts if 40 <= start <= len(whole) - SPAN - 1]
        key = lambda start, name=name: hashlib.sha256(f"{name} {start}".encode()).digest()  # noqa: E731
        for start in sorted(starts, key=key)[: 400 if kind == "prose" else 1]:
            end = start + SPAN
            item = ScoredItem(prompt=whole[max(0, start - BEFORE) : start], options=[whole[start:end]], right=0)
            found.append((f"{kind} {name} {start}", item))
    yield from sorted(found, key=lambda named: hashlib.sha256(named[0].encode()).digest())


def split(item: str) -> Half:
    """Return the half of an item; the items come in the order of a hash of their names, so this is another hash."""
    return half_of(f"half of {item}")


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    development = [record for record in records if split(record["item"]) == "development"]
    held_out = [record for record in records if split(record["item"]) == "held-out"]
    labels = list(records[0]["losses"])
    rows, compared, tried = [], [], []
    for kind in KINDS:
        ours = [record for record in held_out if record["kind"] == kind]
        choice = {
            family: min(family, key=lambda label: _losses(development, kind, label).mean())
            for family in (tuple(MEANS.values()), tuple(CORES))
        }
        mean, core = choice.values()
        for label in labels:
            loss = _losses(ours, kind, label)
            impossible = int(np.isinf(loss).sum())
            cell = f"inf on {impossible} items" if impossible else interval_text(bootstrap_interval(loss), ".4f")
            rows.append([kind, str(len(ours)), label, "chosen" if label in choice.values() else "", cell])
        pairs = [(core, mean), (RELEASED, EQUAL), (mean, EQUAL), (EQUAL, labels[0]), (EQUAL, labels[1])]
        pairs += [(core, labels[0]), (core, labels[1]), (labels[1], labels[0])]
        for first, second in dict.fromkeys(pairs):
            if first != second:
                difference = _losses(ours, kind, first) - _losses(ours, kind, second)
                compared.append(PairedDifferences(f"{kind}: {first} - {second}", "nats a byte", difference.tolist()))
        for label in (*MEANS.values(), *CORES):
            loss = _losses(development, kind, label)
            tried.append([kind, str(len(loss)), label, interval_text(bootstrap_interval(loss), ".4f")])
    headings = ["text", "held-out items", "method", "setting", "log-loss, nats a byte"]
    return {
        "spans": markdown_table(headings, rows),
        "comparisons": comparison_table(compared, "+.4f"),
        "development": markdown_table(["text", "development items", "setting", "log-loss, nats a byte"], tried),
    }


def _losses(records: Records, kind: str, label: str) -> Any:
    """Return the losses of a method on the items of one kind, in nats a byte; None in a record is infinite."""
    found = [record["losses"][label] for record in records if record["kind"] == kind]
    return np.array([math.inf if loss is None else loss for loss in found])


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="The main model.")] = "smollm2-135m",
    helper: Annotated[str, typer.Option(help="The other model.")] = "gemma-3-270m",
    items: Annotated[int, typer.Option(min=40, help="Number of items, half of them of each kind.")] = 120,
    out: Annotated[Path, typer.Option(help="File of results; items in it are not read again.")] = Path(
        "ensemble_pairs.jsonl"
    ),
    page: Page = None,
) -> None:
    """Read the items that are missing in the results file, and print the tables of all items in it."""
    settings = {"model": model, "helper": helper, "span": SPAN, "before": BEFORE}
    records = resumed_records(out, settings, "ensemble_pairs")
    done = {record["item"] for record in records}
    listed = [list(spans(data, kind))[: items // 2] for kind in KINDS]
    todo = [(kind, *item) for pair in zip(*listed, strict=True) for kind, item in zip(KINDS, pair, strict=True)]
    todo = [item for item in todo if item[1] not in done]
    if todo:
        methods = PairedMethods(EnsembleMembers.load(model, [helper]), "arc")
        with progress_bar("items", total=len(todo)) as bar:
            for kind, name, item in todo:
                answer = methods.answer(item)
                losses = {label: -a["logp"][0] / answer["bytes"][0] for label, a in answer["answers"].items()}
                rounded = {label: round(loss, 6) if math.isfinite(loss) else None for label, loss in losses.items()}
                records.append({"settings": settings, "item": name, "kind": kind, "losses": rounded})
                append_record(out, records[-1])
                bar.advance()
    publish(results(json.loads(json.dumps(records))), page)


if __name__ == "__main__":
    command.run(main)
