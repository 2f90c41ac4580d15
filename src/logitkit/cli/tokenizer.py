"""``logitkit tokenizer report NAME [OTHER]``: what a tokenizer does to texts, beside another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output, utf8_text
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_remark, print_table
from logitkit.errors import ParameterError
from logitkit.files import replace_file
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from logitkit.diagnostics import TokenizerReport

EXAMPLES = (
    "logitkit tokenizer report smollm2-135m",
    "logitkit tokenizer report smollm2-135m gemma-3-270m --text book.txt --out tokenizers.html",
    "logitkit tokenizer report smollm2-135m --parallel english.txt --parallel german.txt",
)
app = typer.Typer(help="Measure tokenizers.", no_args_is_help=True, epilog=options.examples(*EXAMPLES))


@app.callback()
def _group() -> None:
    """Measure tokenizers."""


# Over 40 lines: each option of the command is a parameter.
@app.command("report", epilog=options.examples(*EXAMPLES))
def report(
    name: Annotated[str, typer.Argument(help="A known model name, a folder, or a hub id; no model is loaded.")],
    other: Annotated[str | None, typer.Argument(help="A second one, measured beside the first.")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="A text to measure on; repeatable.")] = None,
    parallel: Annotated[
        list[Path] | None,
        typer.Option(
            help="The same lines in several languages, one file for each; the first is the reference of premiums."
        ),
    ] = None,
    mined: Annotated[
        bool,
        typer.Option("--mined", help="Also align each token to the nearest by edit distance; up to half a minute."),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file to write, instead of printing.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure what a tokenizer does to texts: length, premium against a reference, entropies, coverage, losses.

    Without a text, six sentences in twelve languages are measured. Two tokenizers are also compared: which tokens both
    have, and how often a token of one ends inside a token of the other.
    """
    check_output("tokenizer report", "--out", out, ".html", ".htm")
    texts = _read("--text", text or [])
    translations = {key: content.splitlines() for key, content in _read("--parallel", parallel or []).items()}
    if len(translations) == 1:
        rule = "given at least twice: the reference, and a translation"
        raise ParameterError("tokenizer report", "--parallel", rule, str((parallel or [])[0]))
    from logitkit import models
    from logitkit.diagnostics import tokenizer_page, tokenizer_report

    names = [name] if other is None else [name, other]
    tokenizers = {key: models.load_tokenizer(each) for key, each in zip(_labels(names), names, strict=True)}
    methods = ("exact", "gac", "mined") if mined else ("exact", "gac")
    found = tokenizer_report(tokenizers, texts, translations, methods=methods)
    if out is not None:
        with replace_file(out) as part:
            part.write_text(tokenizer_page(found), encoding="utf-8")
        print_line(f"{out}: the report", stderr=True)
    if as_json:
        print_json(_plain(found))
    elif out is None:
        _print(found)


def _read(option: str, paths: Sequence[Path]) -> dict[str, str]:
    """Return the texts of files by label."""
    labels = _labels([str(path) for path in paths])
    return {label: utf8_text("tokenizer report", option, path) for label, path in zip(labels, paths, strict=True)}


def _labels(names: Sequence[str]) -> list[str]:
    """Return the last part of each path or hub id, or the whole where two are alike.

    >>> _labels(["a/x.txt", "b/y.txt"]), _labels(["a/x", "b/x"])
    (['x', 'y'], ['a/x', 'b/x'])
    """
    short = [Path(name).stem if Path(name).suffix == ".txt" else Path(name).name or name for name in names]
    labels = short if len(set(short)) == len(short) else list(names)
    return [f"{label} ({number})" if label in labels[: number - 1] else label for number, label in enumerate(labels, 1)]


def _print(found: TokenizerReport) -> None:
    """Print the tables; how to read them is said on standard error."""
    from logitkit.diagnostics import report_tables

    for each in report_tables(found):
        columns = each.shown()
        headings = [each.headings[number] for number in columns]
        table = FittedTable(*headings, title=each.title, numbers=[name for name in headings if name not in each.texts])
        for row in each.rows:
            table.add_row(*(row[number] for number in columns))
        print_table(table)
        if each.note:
            print_remark(each.note)


def _plain(found: TokenizerReport) -> dict[str, Any]:
    """Return a report as plain data."""
    pair = found.pair
    return {
        "reference": found.reference,
        "tokenizers": {
            name: one._asdict()
            | {
                "texts": {
                    text: measures._asdict()
                    | {
                        "bytes_per_token": measures.bytes_per_token,
                        "entropies": measures.entropies and measures.entropies._asdict(),
                        "coverage": {script: each._asdict() for script, each in measures.coverage.items()},
                    }
                    for text, measures in one.texts.items()
                }
            }
            for name, one in found.tokenizers.items()
        },
        "pair": None
        if pair is None
        else {
            "same": pair.same,
            "alignments": [[each._asdict() for each in side] for side in pair.alignments],
            "crossings": {
                text: both and [each._asdict() | {"share": each.share} for each in both]
                for text, both in pair.crossings.items()
            },
        },
    }
