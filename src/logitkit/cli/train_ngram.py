"""``logitkit train-ngram``: count the n-grams of a corpus into a table."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output
from logitkit.cli.interrupts import continued_from
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line
from logitkit.errors import ParameterError

if TYPE_CHECKING:
    from logitkit.processors.ngram.corpus import TextFiles
    from logitkit.processors.ngram.nltk_corpus import NltkCorpus
    from logitkit.processors.ngram.table import NgramTable

EXAMPLES = (
    "logitkit train-ngram book.txt --tokenizer smollm2-135m -o book.safetensors",
    "logitkit train-ngram corpus/ --tokenizer smollm2-135m -o corpus.safetensors --orders 5",
)


# Over 40 lines: each option of the command is a parameter.
def train_ngram(
    corpus: Annotated[
        list[Path],
        typer.Argument(
            help="Text files, .jsonl files (.gz of either), folders of such files; or one corpus of nltk, as "
            "nltk:gutenberg or nltk:gutenberg/austen-emma.txt."
        ),
    ],
    tokenizer: Annotated[str, typer.Option(help="The tokenizer of this model: a known name, a folder, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write, *.safetensors.")],
    orders: Annotated[int, typer.Option(help="Length of the longest n-grams, 1 to 5.")] = 3,
    smoothing: Annotated[
        str,
        typer.Option(
            help="modified-kneser-ney, kneser-ney, witten-bell, absolute-discounting, add-k, stupid-backoff or mle."
        ),
    ] = "modified-kneser-ney",
    strength: Annotated[
        float | None, typer.Option(help="Pseudo-count, discount or back-off factor of the smoothing.")
    ] = None,
    field: Annotated[str, typer.Option(help="Field of a .jsonl line that holds the text.")] = "text",
    encoding: Annotated[str, typer.Option(help="Encoding of all files.")] = "utf-8",
    chunk: Annotated[int, typer.Option(min=1, help="Number of tokens counted in one pass; bounds memory.")] = 4_000_000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the counts of an interrupted run.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Count the n-grams of a corpus into a table for the processor ngram_style.

    An interrupted run keeps its counts in the folder OUT.partial. The same command then continues from there.
    """
    from logitkit.models import load_tokenizer
    from logitkit.processors.ngram.corpus import TextFiles
    from logitkit.processors.ngram.smoothing import Smoothing
    from logitkit.processors.ngram.table import check_orders

    # Parameters are checked before the tokenizer is loaded and the corpus is read.
    check_output("train-ngram", "--out", out, ".safetensors")
    check_orders(orders)
    Smoothing(name=smoothing, strength=strength)  # type: ignore[arg-type]
    files = _nltk_corpus(corpus) or TextFiles(corpus, field=field, encoding=encoding)
    partial = out.with_name(f"{out.name}.partial")
    if fresh and partial.is_dir():
        shutil.rmtree(partial)
    loaded = load_tokenizer(tokenizer)
    begin = time.perf_counter()
    table = _train(
        files, loaded, partial, {"orders": orders, "smoothing": smoothing, "strength": strength, "chunk": chunk}
    )
    table.save(out)
    shutil.rmtree(partial)
    seconds = time.perf_counter() - begin
    if as_json:
        print_json(_as_data(out, table, seconds))
    else:
        typer.echo(_sentence(out, table, seconds))


def _nltk_corpus(corpus: list[Path]) -> NltkCorpus | None:
    """Return the nltk corpus that the argument names, or None for files and folders.

    Raises:
        ParameterError: an nltk corpus among other texts.
    """
    from logitkit.processors.ngram.nltk_corpus import NltkCorpus

    named = [str(path) for path in corpus if str(path).startswith("nltk:")]
    if not named:
        return None
    if len(corpus) > 1:
        raise ParameterError("train-ngram", "CORPUS", "files and folders, or one nltk corpus", ", ".join(named))
    name, _, file = named[0].removeprefix("nltk:").partition("/")
    return NltkCorpus(name, [file] if file else None)


def _train(files: TextFiles | NltkCorpus, tokenizer: Any, partial: Path, settings: dict[str, Any]) -> NgramTable:
    """Count the corpus, continuing from the folder ``partial`` when it exists."""
    from logitkit.processors.ngram.training import train
    from logitkit.progress import progress_bar

    if partial.is_dir():
        print_line(f"continuing from {partial}; use --fresh to start again", stderr=True)
    with continued_from(partial), progress_bar("counting", total=files.bytes, unit="bytes", piped=True) as bar:
        return train(files, tokenizer, **settings, resume=partial, advance=lambda _: bar.update(completed=files.read))


def _as_data(out: Path, table: NgramTable, seconds: float) -> dict[str, Any]:
    """Return the facts about a new table as plain data."""
    return {
        "path": str(out),
        "tokens": table.tokens,
        "ngrams": [len(level) for level in table.levels],
        "bytes": out.stat().st_size,
        "smoothing": table.smoothing.as_data(),
        "fingerprint": table.fingerprint,
        "sources": table.sources,
        "seconds": round(seconds, 3),
    }


def _sentence(out: Path, table: NgramTable, seconds: float) -> str:
    """Return the facts about a new table as text, with a command that uses the table."""
    return (
        f"{out}: {table!r} of {table.tokens:,} tokens, {out.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s\n"
        f"To use the table: logitkit run 'Once' --chain \"ngram_style('{out}', 0.2)\""
    )
