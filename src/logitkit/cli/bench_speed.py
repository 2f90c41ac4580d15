"""``logitkit bench speed``: tokens per second of every decoding variant."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

import logitkit
from logitkit.cli import options
from logitkit.errors import ParameterError
from logitkit.files import replace_file
from logitkit.models.progress import progress_bar

EXAMPLES = ("logitkit bench speed --only cfg --batch 1 --tokens 16 --rounds 2 --no-processors",)


# Over 40 lines: each option of the command is a parameter.
def speed(
    model: Annotated[
        str, typer.Option(help="A known model name, a folder, a hub id, or random-7b or random-1b (random weights).")
    ] = "smollm2-135m",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; repeatable. By default 1 and 4.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Number of new tokens in each round.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Number of measured rounds, after one warm-up round.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure what has this text in its name; repeatable. Plain decoding always runs."),
    ] = None,
    processors: Annotated[bool, typer.Option(help="Also profile processors separately.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory beside the model as well; slow.")] = True,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file as well.")] = None,
) -> None:
    """Measure the tokens per second of every decoding variant, beside plain `generate`; prints Markdown.

    The column "floor" gives the relative speed that the forward passes alone would allow.
    """
    import torch

    from logitkit.bench.speed import profile, random_models
    from logitkit.bench.speed.decoding_variants import select_variants
    from logitkit.bench.speed.measurement import measure, table

    if out is not None and not out.absolute().parent.is_dir():
        raise ParameterError("bench", "--out", "a file in a folder that exists", str(out))
    variants = select_variants(only or [])
    profiled = [name for name in logitkit.names() if not only or any(part in name for part in only)]
    loaded, tokenizer = random_models.load(model, device=device, dtype=dtype)
    on_gpu = device.startswith("cuda")
    hardware = torch.cuda.get_device_name(device) if on_gpu else f"{torch.get_num_threads()} threads"
    tables = [f"torch {torch.__version__}, {model}, {dtype}, {device} ({hardware}), {rounds} rounds"]
    typer.echo(tables[0])
    for size in batch or [1, 4]:
        sized = {"batch": size, "tokens": tokens}
        with progress_bar(f"batch {size}", total=(rounds + 1) * len(variants)) as bar:
            timings = measure(loaded, tokenizer, variants, rounds=rounds, memory=memory, advance=bar.advance, **sized)
        tables.append(table(timings, **sized))
        typer.echo(f"\n{tables[-1]}")  # printed at once: an interrupt loses only the table being measured
    for vocab, rows in itertools.product(profile.VOCABULARIES, profile.BATCHES) if processors and profiled else ():
        costs = profile.profile_processors(vocab, rows, names=profiled, device=device)
        tables.append(profile.table(vocab, rows, costs))
        typer.echo(f"\n{tables[-1]}")
    if out is not None:
        with replace_file(out) as temporary:
            temporary.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
