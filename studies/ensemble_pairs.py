"""Log-loss of spans of books and programs under CoRE, GaC, UniTE and means of two models, over tokens and over bytes.

    python -m studies.ensemble_pairs --items 120 --out ensemble_pairs.jsonl

Items are spans of books and of programs with the text before them. Both models read every item once over tokens and
once over bytes, and all methods answer from the same distributions. Every span is read twice: as it is, and up to its
last space, where a token ends. Means and CoRE have four settings each, of which the one with the lowest loss on the
development items is judged on the held-out items; the settings as published are judged there too. Items in the results
file are not read again, and a run with more items adds the missing ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit.processors.ensemble import Ensemble
from logitkit.progress import progress_bar
from studies import command, ensemble_bytes
from studies.ensemble_bytes import WEIGHTS, ByteMethods
from studies.ensemble_members import EnsembleMembers
from studies.ensemble_methods import MethodComparison
from studies.evidence import Half, Page, PairedDifferences, comparison_table, half_of, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.partial_words import book_texts, programs
from studies.records import append_record, resumed_records
from studies.scored_items import ScoredItem
from studies.tables import markdown_table

KINDS = ("prose", "code")
WORDS = ", words"  # behind the kind of a span that ends with a whole word
BEFORE, SPAN = 300, 24  # characters before a span, and of a span at least
MEANS = {weight: f"mean, main {weight:g}" for weight in WEIGHTS}
CORES: dict[str, dict[str, Any]] = {
    f"core, {kernel}, floor {floor:g}": {"kernel": kernel, "main_floor": floor}
    for kernel in ("rbf", "linear")
    for floor in (0.5, 0.0)
}
EQUAL, RELEASED, BYTES = "mean, main 0.5", "core, rbf, floor 0.5", "bytes, mean, main 0.5"
FAMILIES = (tuple(MEANS.values()), tuple(CORES), tuple(ensemble_bytes.MEANS), tuple(ensemble_bytes.PRODUCTS))
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


def before_the_last_space(item: ScoredItem) -> ScoredItem | None:
    """Return an item whose span ends with its last whole word; None if the span has no space behind a word."""
    found = re.match(r"(.*\S)\s", item.options[0], re.DOTALL)
    return found and dataclasses.replace(item, options=[found[1]])


class SpanReader:
    """Reads the spans whose records are missing.

    Args:
        settings: the settings of the run, which every record repeats.
        records: the records so far.
        tolerance: tolerance of the distributions over bytes.
    """

    def __init__(self, settings: dict[str, Any], records: Records, tolerance: float) -> None:
        self.settings, self.tolerance = settings, tolerance
        self.bytes: dict[float, ByteMethods] = {}  # by tolerance
        self.done = {(record["item"], record["kind"], record.get("tolerance")) for record in records}

    @cached_property
    def members(self) -> EnsembleMembers:
        """The models."""
        return EnsembleMembers.load(self.settings["model"], [self.settings["helper"]])

    @cached_property
    def tokens(self) -> PairedMethods:
        """The methods over tokens."""
        return PairedMethods(self.members, "arc")

    def missing(self, name: str, kind: str, item: ScoredItem) -> Iterator[dict[str, Any]]:
        """Yield the missing records of an item: of its span and of the whole words of it, over bytes and tokens.

        Where the tolerance makes a byte impossible, the item has records of tolerance 0 too.
        """
        shorter = before_the_last_space(item)
        scopes = {kind: item} | ({} if shorter is None else {f"{kind}{WORDS}": shorter})
        unread = {scope: scored for scope, scored in scopes.items() if (name, scope, self.tolerance) not in self.done}
        about = {"settings": self.settings, "item": name}
        ends = [len(scored.options[0].encode()) for scored in unread.values()]
        answers = self._answers(item, ends, self.tolerance) if unread else []
        yield from ({**about, "kind": scope, **answer} for scope, answer in zip(unread, answers, strict=True))
        if any(None in answer["losses"].values() for answer in answers):
            exact = self._answers(item, ends, 0.0)
            yield from ({**about, "kind": scope, **answer} for scope, answer in zip(unread, exact, strict=True))
        for scope, scored in scopes.items():
            if (name, scope, None) not in self.done:
                answer = self.tokens.answer(scored)
                losses = {label: -each["logp"][0] / answer["bytes"][0] for label, each in answer["answers"].items()}
                yield {**about, "kind": scope, "losses": rounded(losses)}

    def _answers(self, item: ScoredItem, ends: Sequence[int], tolerance: float) -> list[dict[str, Any]]:
        """Return what is recorded of an item over bytes; see `ByteMethods.answers`."""
        if tolerance not in self.bytes:
            self.bytes[tolerance] = ByteMethods(self.members, tolerance)
        return [
            {
                **answer,
                "tolerance": tolerance,
                "losses": rounded(answer["losses"]),
                "logp": [[round(logp, 4) if math.isfinite(logp) else None for logp in row] for row in answer["logp"]],
            }
            for answer in self.bytes[tolerance].answers(item, ends)
        ]


def rounded(losses: dict[str, float]) -> dict[str, float | None]:
    """Return losses with six digits; None for an infinite one."""
    return {label: round(loss, 6) if math.isfinite(loss) else None for label, loss in losses.items()}


def split(item: str) -> Half:
    """Return the half of an item; the items come in the order of a hash of their names, so this is another hash."""
    return half_of(f"half of {item}")


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    items = merged(records)
    development = [record for record in items if split(record["item"]) == "development"]
    held_out = [record for record in items if split(record["item"]) == "held-out"]
    labels = list(items[0]["losses"])
    rows, compared, tried = [], [], []
    for kind in (*KINDS, *(f"{kind}{WORDS}" for kind in KINDS)):
        chosen = [min(family, key=lambda label: losses_of(development, kind, label).mean()) for family in FAMILIES]
        for label in labels:
            loss = losses_of(held_out, kind, label)
            impossible = int(np.isinf(loss).sum())
            cell = f"inf on {impossible} items" if impossible else interval_text(bootstrap_interval(loss), ".4f")
            rows.append([kind, str(len(loss)), label, "chosen" if label in chosen else "", cell])
        compared += comparisons(held_out, kind, chosen, labels)
        for label in (*(label for family in FAMILIES for label in family), *ensemble_bytes.SEQUENCE):
            loss = losses_of(development, kind, label)
            tried.append([kind, str(len(loss)), label, interval_text(bootstrap_interval(loss), ".4f")])
    headings = ["text", "held-out items", "method", "setting", "log-loss, nats a byte"]
    return {
        "spans": markdown_table(headings, rows),
        "comparisons": comparison_table(compared, "+.4f"),
        "development": markdown_table(["text", "development items", "setting", "log-loss, nats a byte"], tried),
        "boundaries": ensemble_bytes.boundaries(records),
        "tolerance": ensemble_bytes.errors_of_tolerance(records),
    }


def merged(records: Records) -> list[dict[str, Any]]:
    """Return one record an item and kind, with the losses over tokens and over bytes."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    over_tokens = [record for record in records if "tolerance" not in record]
    for record in [*over_tokens, *ensemble_bytes.chosen_records(records)]:
        key = record["item"], record["kind"]
        found.setdefault(key, {"item": key[0], "kind": key[1], "losses": {}})["losses"] |= record["losses"]
    return list(found.values())


def comparisons(records: Records, kind: str, chosen: Sequence[str], labels: Sequence[str]) -> list[PairedDifferences]:
    """Return the comparisons of one kind of text.

    Args:
        records: the held-out items.
        kind: the kind of text.
        chosen: the chosen settings, in the order of `FAMILIES`.
        labels: all methods; the first two are the models alone.
    """
    mean, core, byte_mean, byte_product = chosen
    main, helper = labels[:2]
    byte_main, byte_helper = (f"bytes, {label}" for label in (main, helper))
    pairs = [(RELEASED, EQUAL), (EQUAL, main), (EQUAL, helper)]
    if kind in KINDS:
        pairs = [
            (core, mean),
            (RELEASED, EQUAL),
            (mean, EQUAL),
            *pairs[1:],
            (core, main),
            (core, helper),
            (helper, main),
        ]
    else:
        pairs += [(byte_mean, mean), (byte_product, byte_mean)]
    pairs += [(BYTES, EQUAL), (BYTES, RELEASED), (BYTES, byte_main), (BYTES, byte_helper)]
    pairs += [(byte_main, main), (byte_helper, helper)]
    loss = {label: losses_of(records, kind, label) for label in labels}
    compared = {f"{kind}: {a} - {b}": loss[a] - loss[b] for a, b in pairs if a != b}
    if kind not in KINDS:
        label = f"{kind}: {BYTES} - {EQUAL}, gains over {helper}"
        compared[label] = loss[BYTES] - loss[byte_helper] - (loss[EQUAL] - loss[helper])
    return [PairedDifferences(name, "nats a byte", difference.tolist()) for name, difference in compared.items()]


def losses_of(records: Records, kind: str, label: str) -> Any:
    """Return the losses of a method on the items of one kind, in nats a byte; None in a record is infinite."""
    found = [record["losses"][label] for record in records if record["kind"] == kind]
    return np.array([math.inf if loss is None else loss for loss in found])


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="The main model.")] = "smollm2-135m",
    helper: Annotated[str, typer.Option(help="The other model.")] = "gemma-3-270m",
    items: Annotated[int, typer.Option(min=2, help="Number of items, half of them of each kind.")] = 120,
    out: Annotated[Path, typer.Option(help="File of results; items in it are not read again.")] = Path(
        "ensemble_pairs.jsonl"
    ),
    tolerance: Annotated[
        float, typer.Option(min=0, help="Tolerance of the distributions over bytes; 0 is exact.")
    ] = 1e-3,
    page: Page = None,
) -> None:
    """Read the items that are missing in the results file, and print the tables of all items in it."""
    settings = {"model": model, "helper": helper, "span": SPAN, "before": BEFORE}
    records = resumed_records(out, settings, "ensemble_pairs")
    listed = [list(spans(data, kind))[: items // 2] for kind in KINDS]
    todo = [(kind, *item) for pair in zip(*listed, strict=True) for kind, item in zip(KINDS, pair, strict=True)]
    reader = SpanReader(settings, records, tolerance)
    with progress_bar("items", total=len(todo)) as bar:
        for kind, name, item in todo:
            for record in reader.missing(name, kind, item):
                records.append(record)
                append_record(out, record)
            bar.advance()
    publish(results(json.loads(json.dumps(records))), page)


if __name__ == "__main__":
    command.run(main)
