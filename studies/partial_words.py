"""Next byte after prompts that end at the end of a unit but inside a token: byte_boundary, a hard mask, token healing.

    python -m studies.partial_words --count 150 --out partial_words.jsonl

Four kinds of cuts, of which the first two follow arXiv:2601.23223, whose prompts end where a reader sees a whole unit:

- ``compound``: between the parts of an English word that is two words of the books, such as ``some|thing``.
- ``signs``: between two lexical units of a program, such as ``(|)`` or ``)|:``.
- ``prose`` and ``code``: at any character.

The first two kinds keep only cuts inside a token of the whole text; the last two keep all cuts.
Every method gives a distribution of the next byte, except token healing, which writes a text. Nothing is chosen, so all
cuts count. Cuts in the results file are not measured again, and a run with a larger count adds the missing ones.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from logitkit import models
from logitkit.progress import progress_bar
from studies import command
from studies.books import book_text
from studies.cut_prompts import CutPromptMethods
from studies.cut_tables import ALIGNED, ROWS, SIZES, cut_tables
from studies.evidence import Page, comparison_table, publish
from studies.records import append_record, resumed_records
from studies.tables import markdown_table

LEAST_BEFORE = 8  # characters, so that a token boundary lies before a cut
BOOKS = ("pg996_don_quixote.txt", "1661-0.txt", "36-0.txt")
KINDS = ("compound", "signs", "prose", "code")
BEFORE, AFTER = 200, 40  # characters of a text before and after its cut
PART, OFTEN = 4, 5  # letters of a part of a compound word at least, and occurrences of each part as a word
WORD = re.compile(r"(?<![A-Za-z'-])[a-z]+(?![A-Za-z'-])")
SIGNS = re.compile(r"(?<=[^\w\s])(?=[^\w\s])")
OPERATORS = re.compile(r"[=!<>+*/%|&^@:-]=|//|\*\*|->|<<|>>|''|\"\"|##|--")  # pairs of signs that are one unit
Records = Sequence[dict[str, Any]]


class Cut(NamedTuple):
    """A text that is cut: its name, its kind, the characters before the cut, and those after it."""

    name: str
    kind: str
    before: str
    after: str


def compounds(text: str) -> Iterator[int]:
    """Yield the places between the two parts of compound words.

    A heuristic: a word counts if it is two frequent words of the same text; the first such cut is taken.

    Examples:
        >>> text = "some thing " * 5 + "something else"
        >>> [text[place - 4 : place + 5] for place in compounds(text)]
        ['something']
    """
    words = collections.Counter(WORD.findall(text))
    parts = {word for word, count in words.items() if count >= OFTEN and len(word) >= PART}
    for match in WORD.finditer(text):
        word = match[0]
        cuts = range(PART, len(word) - PART + 1)
        yield from (match.start() + n for n in cuts if word[:n] in parts and word[n:] in parts)


def places(folder: Path, kind: str) -> Iterator[Cut]:
    """Yield all cuts of a kind, each with up to 200 characters before it."""
    if kind in ("compound", "prose"):
        for book, _, text in book_texts(folder):
            found = compounds(text) if kind == "compound" else range(BEFORE, len(text) - AFTER, 97)
            yield from (_cut(f"{book} {place}", kind, text, place) for place in found)
        return
    for name, prompt, program in programs(folder):
        text = prompt + program
        signs = (match.start() for match in SIGNS.finditer(text))
        units = (place for place in signs if not OPERATORS.match(text, place - 1))
        found = units if kind == "signs" else range(1, len(text))
        yield from (_cut(f"{name} {place}", kind, text, place) for place in found if place > len(prompt))


def _cut(name: str, kind: str, text: str, place: int) -> Cut:
    """Return the cut of a text at a place."""
    return Cut(f"{kind} {name}", kind, text[max(0, place - BEFORE) : place], text[place : place + AFTER])


def book_texts(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each book, nothing, and its text without the notes of Project Gutenberg."""
    for book in BOOKS:
        text = book_text(folder / book)
        text = text.partition("*** START OF")[2] or text
        yield book, "", text.partition("*** END OF")[0]


def programs(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the prompt and the solution of the problems of HumanEval and MBPP."""
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        for task in map(json.loads, lines):
            yield task["task_id"], task["prompt"], task["canonical_solution"]
    for task in json.loads((folder / "sanitized-mbpp.json").read_text(encoding="utf-8")):
        yield f"MBPP/{task['task_id']}", "", task["code"].replace("\r\n", "\n")


def chosen_cuts(folder: Path, count: int, inside: Callable[[Cut], bool]) -> list[Cut]:
    """Return the first cuts of each kind in the order of a hash of their names, the kinds in turn.

    Of a word or a program at most one cut is taken in the kinds ``compound``, ``signs`` and ``code``.

    Args:
        folder: the folder of the data files.
        count: number of cuts of each kind, at most.
        inside: whether a cut lies inside a token.
    """
    chosen: list[list[Cut]] = []
    for kind in KINDS:
        seen: set[str] = set()
        cuts: list[Cut] = []
        for cut in sorted(places(folder, kind), key=lambda cut: hashlib.sha256(cut.name.encode()).digest()):
            group = _group(cut)
            if len(cuts) == count or group in seen or len(cut.before) < LEAST_BEFORE:
                continue
            if kind in ("prose", "code") or inside(cut):
                seen.add(group)
                cuts.append(cut)
        chosen.append(cuts)
    return [cut for together in itertools.zip_longest(*chosen) for cut in together if cut is not None]


def _group(cut: Cut) -> str:
    """Return what may be cut once: a compound word, a program, or in prose the place."""
    if cut.kind == "compound":
        return "".join(re.findall(r"[a-z]+$", cut.before) + re.findall(r"^[a-z]+", cut.after))
    return cut.name if cut.kind == "prose" else cut.name.rpartition(" ")[0]


def inside_a_token(tokenizer: Any) -> Callable[[Cut], bool]:
    """Return a function that tells whether a cut lies inside a token of the whole text."""

    def inside(cut: Cut) -> bool:
        offsets = tokenizer(cut.before + cut.after, return_offsets_mapping=True)["offset_mapping"]
        return any(start < len(cut.before) < end for start, end in offsets)

    return inside


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    tables = cut_tables(records, KINDS, (*ROWS.values(), ALIGNED), "bits a cut")
    headings = ["kind", "cuts", "method", "next byte right", "log-loss, bits"]
    return {
        "bytes": markdown_table(headings, tables.methods),
        "comparisons": comparison_table(tables.compared),
        "sizes": markdown_table(SIZES, tables.sizes),
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    count: Annotated[int, typer.Option(min=1, help="Number of cuts of each kind.")] = 150,
    out: Annotated[Path, typer.Option(help="File of results; cuts in it are not measured again.")] = Path(
        "partial_words.jsonl"
    ),
    page: Page = None,
) -> None:
    """Measure the cuts that are missing in the results file, and print the tables of all cuts in it."""
    settings = {"model": model, "before": BEFORE}
    records = resumed_records(out, settings, "partial_words")
    done = {record["cut"] for record in records}
    inside = inside_a_token(models.load_tokenizer(model))
    todo = [cut for cut in chosen_cuts(data, count, inside) if cut.name not in done]
    methods = CutPromptMethods(*models.load(model))
    with progress_bar("cuts", total=len(todo)) as bar:
        for cut in todo:
            measured = methods.evaluate(cut.before, cut.after)
            measured["losses"] = {method: round(loss, 6) for method, loss in measured["losses"].items()}
            records.append({"settings": settings, "cut": cut.name, "kind": cut.kind, **measured})
            append_record(out, records[-1])
            bar.advance()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
