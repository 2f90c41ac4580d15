"""``logitkit bench speed``: tokens per second of every decoding variant."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import logitkit
from logitkit.cli import options
from logitkit.cli.inputs import check_output
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line
from logitkit.files import replace_file
from logitkit.progress import progress_bar

EXAMPLES = (
    "logitkit bench speed --only cfg --batch 1 --tokens 16 --rounds 2 --no-processors",
    "logitkit bench speed --only cfg --static --batch 1 --tokens 16 --rounds 2 --no-processors --out speed.md",
)


# Over 40 lines: each option of the command is a parameter.
def speed(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="A known model name, a folder, a hub id, or random-7b or random-1b (random weights).")
    ] = "smollm2-135m",
    batch: Annotated[
        list[int] | None, typer.Option(min=1, max=10_000, help="Batch size; repeatable. By default 1 and 4.")
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=2, max=options.MOST_TOKENS, help="Number of new tokens in each round.")
    ] = 64,
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of measured rounds, after one warm-up round.")
    ] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure what has this text in its name; repeatable. Plain decoding always runs."),
    ] = None,
    static: Annotated[
        bool,
        typer.Option("--static", help="Measure every variant under a static cache with a compiled forward as well."),
    ] = False,
    processors: Annotated[bool, typer.Option(help="Also profile processors separately.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory beside the model as well; slow.")] = True,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file as well.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure the tokens per second of every decoding variant, beside plain `generate`; prints Markdown.

    The column "floor" gives the relative speed that the forward passes alone would allow. With --static, compiling
    takes up to a minute for each new shape, before the measured rounds.
    """
    from logitkit.bench.execution.manifest import environment
    from logitkit.bench.speed import profile, random_models, tables
    from logitkit.bench.speed.decoding_variants import select_variants
    from logitkit.bench.speed.measurement import check_room, measure
    from logitkit.bench.speed.static_cache import static_form

    check_output("bench speed", "--out", out)
    variants = select_variants(only or [])
    profiled = [name for name in logitkit.names() if not only or any(part in name for part in only)]
    loaded, tokenizer = random_models.load(model, device=device, dtype=dtype)
    check_room("bench speed", "--tokens", loaded, tokenizer, tokens)
    settings = {"command": _command(context), "model": model, "device": device, "dtype": dtype, "rounds": rounds}
    data: dict[str, Any] = {**settings, "environment": environment(), "variants": [], "processors": []}
    written: list[str] = []

    def add(text: str) -> None:
        """Print and write a table at once: an interrupt loses only the table being measured."""
        written.append(text)
        if not as_json:
            typer.echo(text if len(written) == 1 else f"\n{text}")
        if out is not None:
            with replace_file(out) as temporary:
                temporary.write_text("\n\n".join(written) + "\n", encoding="utf-8")

    add(tables.heading(data))
    measured = [form for each in variants for form in ([each, static_form(each, device)] if static else [each])]
    for size in batch or [1, 4]:
        sized = {"batch": size, "tokens": tokens}
        with progress_bar(f"batch {size}", total=(rounds + 1) * len(measured), piped=True) as bar:
            timings = measure(loaded, tokenizer, measured, rounds=rounds, memory=memory, advance=bar.advance, **sized)
        rows = tables.variant_rows(timings, **sized)
        data["variants"].append({**sized, "rows": rows})
        add(tables.variant_table(rows, **sized))
    for vocab, size in itertools.product(profile.VOCABULARIES, profile.BATCHES) if processors and profiled else ():
        rows = tables.processor_rows(profile.profile_processors(vocab, size, names=profiled, device=device))
        data["processors"].append({"vocabulary": vocab, "batch": size, "rows": rows})
        add(tables.processor_table(rows, vocab=vocab, batch=size))
    if as_json:
        print_json(data)
    if failures := tables.failures(data):
        print_line("\n".join(f"not measured: {failure}" for failure in failures), stderr=True)
        raise typer.Exit(1)


def _command(context: typer.Context) -> str:
    """Return the command as typed, without the options of where its result goes."""
    words: list[str] = []
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in ("out", "as_json"):
            continue
        on, off = parameter.opts[0], [*parameter.secondary_opts, ""][0]
        if isinstance(value, bool):
            words.append(on if value else off)
        else:
            for each in value if isinstance(value, (list, tuple)) else [value]:
                words += [on, str(each)]
    return shlex.join([*["logitkit", "bench", "speed"], *words])
