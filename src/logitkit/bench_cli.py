"""The command line of measurements: ``logitkit bench speed``."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from logitkit.errors import ParameterError

app = typer.Typer(help="Measure decoding strategies side by side.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure decoding strategies side by side."""


@app.command()
def speed(
    model: Annotated[
        str, typer.Option(help="A known model, a folder, a hub id, or random-7b or random-1b.")
    ] = "smollm2-135m",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch sizes; give it again for more.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="New tokens a run.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Ways whose name contains this; plain always runs.")] = None,
    processors: Annotated[bool, typer.Option(help="Profile every registered processor by itself, too.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure the peak of tensors beside the model, too; slow.")] = True,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file, too.")] = None,
) -> None:
    """Tokens a second of every way of decoding beside plain `generate`, with the floor of its forwards; Markdown."""
    import torch

    from logitkit.bench import profile, subject
    from logitkit.bench.speed import measure, table
    from logitkit.bench.ways import chosen

    if out is not None and not out.absolute().parent.is_dir():
        raise ParameterError("bench", "--out", "a file in a folder that exists", str(out))
    ways = chosen(only or [])
    loaded, tokenizer = subject.load(model, device=device, dtype=dtype)
    on_gpu = device.startswith("cuda")
    where = torch.cuda.get_device_name(device) if on_gpu else f"{torch.get_num_threads()} threads"
    tables = [f"torch {torch.__version__}, {model}, {dtype}, {device} ({where}), {rounds} rounds"]
    typer.echo(tables[0])
    for size in batch or [1, 4]:
        sized = {"batch": size, "tokens": tokens}
        with _progress() as progress:
            task = progress.add_task(f"batch {size}", total=(rounds + 1) * len(ways))
            advance = partial(progress.advance, task)
            timings = measure(loaded, tokenizer, ways, rounds=rounds, memory=memory, advance=advance, **sized)
        tables.append(table(timings, **sized))
        typer.echo(f"\n{tables[-1]}")  # each as it is done: an interrupt loses the one being measured only
    for vocab, rows in itertools.product(profile.VOCABULARIES, profile.BATCHES) if processors else ():
        tables.append(profile.table(vocab, rows, profile.profile(vocab, rows, device=device)))
        typer.echo(f"\n{tables[-1]}")
    if out is not None:
        out.write_text("\n\n".join(tables) + "\n", encoding="utf-8")


def _progress() -> Progress:
    """A bar on standard error, gone when it is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)
