"""``logitkit bits-per-byte FILE``: how many bits models with any tokenizers need for a byte of one text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import load_model, utf8_text
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_remark, print_table
from logitkit.errors import ParameterError
from logitkit.packages import is_installed
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from logitkit.diagnostics import BitsPerByte

EXAMPLES = (
    "logitkit bits-per-byte book.txt --model smollm2-135m",
    "logitkit bits-per-byte book.txt --model smollm2-135m --model gemma-3-270m",
)
KINDS = {"tokens": False, "exact": True}


# Over 40 lines: each option of the command is a parameter.
def bits_per_byte(
    file: Annotated[Path, typer.Argument(help="The text, UTF-8.")],
    model: Annotated[
        list[str],
        typer.Option(help="A known model name, a folder, or a hub id; repeatable, the first is the baseline."),
    ],
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many bytes of the text.")] = None,
    block: Annotated[int, typer.Option(min=1, help="Least bytes of a block; intervals resample blocks.")] = 256,
    window: Annotated[
        int | None, typer.Option(min=16, help="Most bytes read at once. Default: 2048, or what the models hold.")
    ] = None,
    tokens_only: Annotated[
        bool, typer.Option("--tokens-only", help="Score the models' own tokens alone, which takes less time.")
    ] = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    as_json: options.AsJson = False,
) -> None:
    """Measure how many bits models need for a byte of a text, on the same bytes, block by block.

    Tokens: of the model's own encoding. Exact: of the bytes, over all ways in which the tokenizer may write them, so
    that models with other tokenizers are compared fairly. Differences have intervals of 95 %.
    """
    if repeated := [name for number, name in enumerate(model) if name in model[:number]]:
        raise ParameterError("bits-per-byte", "--model", "given once for each model", repeated[0])
    text = utf8_text("bits-per-byte", "the text", file, line_ends=False)
    if not text:
        raise ParameterError("bits-per-byte", "the text", "a file with a text", str(file))
    if limit is not None:
        text = text.encode()[:limit].decode(errors="ignore")
    loaded = {name: load_model("bits-per-byte", name, device=device, dtype=dtype) for name in model}
    from logitkit import diagnostics

    with progress_bar("windows", total=None, piped=True) as bar:
        found = diagnostics.bits_per_byte(
            loaded,
            text,
            exact=not tokens_only,
            block=block,
            window=window,
            start=lambda total: bar.update(total=total),
            advance=bar.advance,
        )
    rows = _rows(found, model)
    if as_json:
        print_json(_plain(found, rows))
        return
    _print(found, rows)


def _rows(found: BitsPerByte, names: list[str]) -> list[dict[str, Any]]:
    """Return for each model and quantity the bits per byte, and the difference to the first model."""
    rows = []
    for name in names:
        for kind, exact in KINDS.items():
            if exact and found.models[name].exact is None:
                continue
            row: dict[str, Any] = {"model": name, "quantity": kind, "bits_per_byte": found.of(name, exact=exact)}
            if name != names[0]:
                row |= _difference(found, name, names[0], exact=exact)
            rows.append(row)
    return rows


def _difference(found: BitsPerByte, name: str, baseline: str, *, exact: bool) -> dict[str, Any]:
    """Return the difference to the baseline, with an interval from resampled blocks where there is one."""
    from logitkit.diagnostics import chunk_divergence

    bits = found.differences(name, baseline, exact=exact)
    row: dict[str, Any] = {"difference": sum(bits) / sum(found.blocks), "low": None, "high": None}
    if not exact:
        row["chunk_divergence"] = chunk_divergence(found.models[baseline].chunks, found.models[name].chunks)
    if is_installed("statsmodels") and len(bits) > 1 and all(abs(each) < float("inf") for each in bits):
        from logitkit.bench.report import bootstrap_interval

        _, row["low"], row["high"] = bootstrap_interval(bits, found.blocks)
    return row


def _plain(found: BitsPerByte, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result as plain data."""
    return {
        "bytes": sum(found.blocks),
        "windows": found.windows,
        "window": found.window,
        "rows": rows,
        "blocks": found.blocks,
        "chunks": found.chunks,
        "models": {name: each._asdict() for name, each in found.models.items()},
    }


def _print(found: BitsPerByte, rows: list[dict[str, Any]]) -> None:
    """Print a row for each model and quantity, and how the text was read."""
    numbers = ("bits per byte", "beside the first", "95 %")
    table = FittedTable("model", "quantity", *numbers, numbers=numbers)
    for row in rows:
        shown = f"{row['difference']:+.4f}" if "difference" in row else ""
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]" if row.get("low") is not None else ""
        table.add_row(row["model"], row["quantity"], f"{row['bits_per_byte']:.4f}", shown, interval)
    print_table(table)
    for row in rows:
        if "chunk_divergence" in row:
            print_line(
                f"{row['model']}: {row['chunk_divergence']:.3f} bits a chunk from the first model "
                f"({len(found.chunks)} chunks between places where all tokens end)",
                stderr=True,
            )
    size = f"{sum(found.blocks)} bytes, windows of at most {found.window} bytes: {found.windows}, blocks"
    exact = any(row["quantity"] == "exact" for row in rows)
    meaning = " Exact: over all ways in which the tokenizer may write the bytes." if exact else ""
    print_remark(f"{size}: {len(found.blocks)}.{meaning}")
    if len(found.models) > 1 and not is_installed("statsmodels"):
        print_remark("no intervals: they need the extra [bench]")
    elif len(found.models) > 1 and len(found.blocks) < 2:
        print_remark("no intervals: one block; give a longer text, or a smaller --block")
