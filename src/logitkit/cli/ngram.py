"""Count a corpus from the command line: ``logitkit train-ngram CORPUS --tokenizer NAME -o table.safetensors``."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from logitkit.errors import ParameterError

if TYPE_CHECKING:
    from logitkit.processors.ngram.table import NgramTable


def train_ngram(
    corpus: Annotated[list[Path], typer.Argument(help="Text files, .jsonl files (.gz too), or folders of them.")],
    tokenizer: Annotated[str, typer.Option(help="Whose tokenizer: a known model, a folder, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write, *.safetensors.")],
    orders: Annotated[int, typer.Option(help="Longest n-gram, 1 to 5.")] = 3,
    smoothing: Annotated[
        str, typer.Option(help="add-k, witten-bell, kneser-ney, absolute-discounting, stupid-backoff or mle.")
    ] = "kneser-ney",
    strength: Annotated[float | None, typer.Option(help="Its pseudo-count, discount or backoff factor.")] = None,
    field: Annotated[str, typer.Option(help="Where a line of .jsonl holds its text.")] = "text",
    encoding: Annotated[str, typer.Option(help="Encoding of all files.")] = "utf-8",
    chunk: Annotated[int, typer.Option(min=1, help="Tokens counted at once.")] = 4_000_000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an interrupted run counted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the n-grams of a corpus into a table for ngram_style.

    Interrupted, it leaves what it counted in OUT.partial, and the same command goes on from there.
    """
    from logitkit.models import load_tokenizer
    from logitkit.models.progress import progress_bar
    from logitkit.processors.ngram.corpus import Files
    from logitkit.processors.ngram.smoothing import Smoothing
    from logitkit.processors.ngram.table import check_orders
    from logitkit.processors.ngram.training import train

    if out.suffix != ".safetensors" or out.is_dir():
        raise ParameterError("train-ngram", "--out", "a file named *.safetensors", str(out))
    check_orders(orders)
    Smoothing(name=smoothing, strength=strength)  # type: ignore[arg-type]
    files = Files(corpus, field=field, encoding=encoding)
    partial = out.with_name(f"{out.name}.partial")
    console = Console(stderr=True, highlight=False)
    if fresh and partial.is_dir():
        shutil.rmtree(partial)
    if partial.is_dir():
        console.print(f"going on from {partial} (--fresh begins anew)", markup=False)
    loaded = load_tokenizer(tokenizer)
    begun = time.perf_counter()
    try:
        with progress_bar("counting", total=files.bytes, unit="bytes") as bar:
            settings: dict[str, Any] = {"orders": orders, "smoothing": smoothing, "strength": strength, "chunk": chunk}
            table = train(files, loaded, **settings, resume=partial, advance=lambda _: bar.update(completed=files.read))
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on from {partial}", markup=False)
        raise typer.Exit(130) from None
    table.save(out)
    shutil.rmtree(partial)
    seconds = time.perf_counter() - begun
    typer.echo(json.dumps(_told(out, table, seconds), indent=2) if as_json else _sentence(out, table, seconds))


def _told(out: Path, table: NgramTable, seconds: float) -> dict[str, Any]:
    """What was made, as plain data."""
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
    """The same in words."""
    return (
        f"{out}: {table!r} of {table.tokens:,} tokens, {out.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s\n"
        f"Use it: logitkit run 'Once' --chain \"ngram_style('{out}', 0.2)\""
    )
