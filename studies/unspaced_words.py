"""Next character after prompts that end at the end of a phrase but inside a token, in languages without spaces.

    python -m nltk.downloader udhr2
    python -m studies.unspaced_words --out unspaced_words.jsonl

The texts are the Universal Declaration of Human Rights in Chinese, Japanese and Thai, a corpus of nltk in the public
domain. BudouX marks the ends of phrases, where such a text may break a line. A cut lies between two letters at the end
of a phrase, inside a token of the whole text, and each token counts once at each of its places: a declaration repeats
its words. Nothing is chosen, so all cuts count. Cuts in the results file are not measured again, and a run with a
larger count adds the missing ones.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit import models
from logitkit.errors import FileFormatError, MissingPackageError
from logitkit.progress import progress_bar
from studies import command
from studies.cut_characters import CutCharacterMethods
from studies.cut_tables import BOUNDARY, ROWS, SIZES, cut_tables
from studies.evidence import Page, PairedDifferences, comparison_table, publish
from studies.intervals import bootstrap_interval
from studies.partial_words import AFTER, BEFORE, LEAST_BEFORE, Cut, inside_a_token
from studies.records import append_record, resumed_records
from studies.tables import markdown_table

LANGUAGES = {  # file of the corpus, and parser of BudouX
    "Chinese": ("cmn_hans.txt", "load_default_simplified_chinese_parser"),
    "Japanese": ("jpn.txt", "load_default_japanese_parser"),
    "Thai": ("tha.txt", "load_default_thai_parser"),
}
BITS = "bits a character"
Records = Sequence[dict[str, Any]]


def declaration(language: str) -> str:
    """Return the Universal Declaration of Human Rights in a language.

    Raises:
        FileFormatError: nltk has no such corpus.
    """
    import nltk

    try:
        return str(nltk.corpus.udhr2.raw(LANGUAGES[language][0]))
    except LookupError as error:
        raise FileFormatError(
            "unspaced_words: nltk must have the corpus udhr2, got none; run: python -m nltk.downloader udhr2"
        ) from error


@functools.cache
def parser(language: str) -> Any:
    """Return the parser of BudouX for a language.

    Raises:
        MissingPackageError: BudouX is not installed.
    """
    try:
        import budoux
    except ImportError:
        raise MissingPackageError("unspaced_words", "budoux", "test") from None
    return getattr(budoux, LANGUAGES[language][1])()


def phrase_ends(language: str, text: str) -> Iterator[int]:
    """Yield the places in a text where a phrase ends inside a line, between two letters or signs above or below one."""
    start = 0
    for line in text.splitlines(keepends=True):
        lengths = [len(phrase) for phrase in parser(language).parse(line)] if line.strip() else []
        for place in itertools.accumulate(lengths[:-1], initial=start):
            if place > start and all(unicodedata.category(sign)[0] in "LM" for sign in text[place - 1 : place + 1]):
                yield place
        start += len(line)


def all_cuts(language: str) -> list[Cut]:
    """Return the ends of phrases of a declaration, in the order of a hash of their places."""
    text = declaration(language)
    found = [
        Cut(f"{language} {place}", language, text[max(0, place - BEFORE) : place], text[place : place + AFTER])
        for place in phrase_ends(language, text)
        if place >= LEAST_BEFORE
    ]
    return sorted(found, key=lambda cut: hashlib.sha256(cut.name.encode()).digest())


def cut_token(tokenizer: Any, cut: Cut) -> tuple[str, int]:
    """Return the token of the whole text in which a cut lies, and how many of its characters precede the cut."""
    text, place = cut.before + cut.after, len(cut.before)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    start, end = next((start, end) for start, end in offsets if start < place < end)
    return text[start:end], place - start


def one_of_each(tokenizer: Any, cuts: Sequence[Cut]) -> list[Cut]:
    """Return the first cut of each token and place in it."""
    found: dict[tuple[str, int], Cut] = {}
    for cut in cuts:
        found.setdefault(cut_token(tokenizer, cut), cut)
    return list(found.values())


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    tables = cut_tables([record for record in records if "hits" in record], [*LANGUAGES], [*ROWS.values()], BITS)
    headings = ["language", "cuts", "method", "next character right", "log-loss, bits"]
    return {
        "ends": ends_table([record for record in records if "ends" in record]),
        "characters": markdown_table(headings, tables.methods),
        "factors": factors_table(tables.compared),
        "comparisons": comparison_table(tables.compared),
        "sizes": markdown_table(SIZES, tables.sizes),
    }


def factors_table(compared: Sequence[PairedDifferences]) -> str:
    """Return how many times the probability `byte_boundary` gives the next character, as geometric means."""
    rows = []
    for one in compared:
        kind, _, other = one.comparison.partition(f": {BOUNDARY} - ")
        if one.unit == BITS:
            mean = bootstrap_interval([-bits for bits in one.differences])
            factors = (2.0**bits for bits in mean)
            rows.append([kind, other, "{:.2f} [{:.2f}, {:.2f}]".format(*factors)])
    return markdown_table(["language", "in place of", "times the probability"], rows)


def ends_table(records: Records) -> str:
    """Return how many ends of phrases lie inside a token."""
    rows = [
        [
            *(str(one[column]) for column in ("kind", "ends", "inside")),
            f"{one['inside'] / one['ends']:.3f}",
            str(one["distinct"]),
        ]
        for one in records
    ]
    headings = ["language", "ends of phrases between letters", "inside a token", "share", "different tokens and places"]
    return markdown_table(headings, rows)


def main(
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "gemma-3-270m",
    count: Annotated[int, typer.Option(min=2, help="Number of cuts of each language, at most.")] = 200,
    out: Annotated[Path, typer.Option(help="File of results; cuts in it are not measured again.")] = Path(
        "unspaced_words.jsonl"
    ),
    page: Page = None,
) -> None:
    """Measure the cuts that are missing in the results file, and print the tables of all cuts in it."""
    settings = {"model": model, "before": BEFORE}
    records = resumed_records(out, settings, "unspaced_words")
    found = {language: all_cuts(language) for language in LANGUAGES}
    tokenizer = models.load_tokenizer(model)
    inside = inside_a_token(tokenizer)
    kept = {language: [cut for cut in cuts if inside(cut)] for language, cuts in found.items()}
    distinct = {language: one_of_each(tokenizer, cuts) for language, cuts in kept.items()}

    def keep(record: dict[str, Any]) -> None:
        records.append({"settings": settings, **record})
        append_record(out, records[-1])

    counted = {record["kind"] for record in records if "ends" in record}
    for language in LANGUAGES:
        if language not in counted:
            sizes = {"ends": len(found[language]), "inside": len(kept[language]), "distinct": len(distinct[language])}
            keep({"kind": language, **sizes})
    done = {record.get("cut") for record in records}
    turns = itertools.zip_longest(*(cuts[:count] for cuts in distinct.values()))
    todo = [cut for turn in turns for cut in turn if cut is not None and cut.name not in done]
    methods = CutCharacterMethods(*models.load(model))
    with progress_bar("cuts", total=len(todo)) as bar:
        for cut in todo:
            measured = methods.evaluate(cut.before, cut.after)
            measured["losses"] = {method: round(loss, 6) for method, loss in measured["losses"].items()}
            keep({"cut": cut.name, "kind": cut.kind, **measured})
            bar.advance()
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
