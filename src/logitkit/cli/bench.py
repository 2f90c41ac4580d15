"""The command line of measurements: ``logitkit bench run.yaml``, ``bench report``, ``bench tasks``, ``bench speed``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from logitkit.errors import ParameterError, RunError, UnknownNameError
from logitkit.models.progress import progress_bar

if TYPE_CHECKING:
    from logitkit.bench.config.run import Run


class Running(typer.core.TyperGroup):
    """A group whose first word may be a run file, or a flag of one: then ``run`` is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before what is no command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=Running, help="Measure decoding strategies side by side.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure decoding strategies side by side."""


@app.command()
def run(
    file: Annotated[Path | None, typer.Argument(help="A run file, *.yaml; without it, the flags say the run.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A known model, a folder, or a hub id; again for more.")] = (
        None
    ),
    chain: Annotated[list[str] | None, typer.Option(help="A chain, or NAME=CHAIN; again for more. Plain runs too.")] = (
        None
    ),
    task: Annotated[list[str] | None, typer.Option(help="A task, see `bench tasks`; again for more.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="The first so many items of each task.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the sampling; again for more.")] = None,
    sampling: Annotated[bool, typer.Option("--sampling", help="Draw tokens instead of taking the likeliest.")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Answers to each item; with --sampling.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest continuation.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Items decoded together.")] = None,
    cost: Annotated[int | None, typer.Option(min=1, help="Paired rounds in which cost is measured.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of results; goes on where it is there.")] = (
        None
    ),
    engine: Annotated[str, typer.Option(help="Who runs it.")] = "local",
    without_cost: Annotated[
        bool, typer.Option("--without-cost", help="Leave cost to a later call: timings want a quiet machine.")
    ] = False,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Let tasks run what a model wrote, fenced in.")
    ] = False,
) -> None:
    """Run tasks x chains x models x seeds; stopped at any point, the same command goes on."""
    from logitkit.bench.config import runfile
    from logitkit.bench.execution.engine import engine_named

    given = {"model": model, "chain": chain, "task": task, "samples": samples, "seed": seed, "sampling": sampling}
    given |= {"repeats": repeats, "max_new_tokens": max_new_tokens, "batch": batch, "cost": cost}
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False)]
    if file is None:
        made = runfile.from_data(_data(given), allow_code_execution=allow_code_execution)
        out = out or Path("bench-results") / made.hash
    elif flags:
        raise ParameterError("bench", flags[0], "left out where a run file is given", str(file), "write it in the file")
    elif not file.is_file():
        raise UnknownNameError("run file or command", str(file), ["report", "speed", "tasks"])
    else:
        made = runfile.read(file, allow_code_execution=allow_code_execution)
        out = out or Path("bench-results") / file.stem
    chosen = engine_named(engine)
    _carry_out(made, out, chosen, engine, with_cost=not without_cost)


def _data(given: dict[str, Any]) -> dict[str, Any]:
    """Flags in the form of a run file."""
    chains: dict[str, str] = {"plain": ""}
    for text in given["chain"] or []:
        name, equals, rest = text.partition("=")
        named = bool(equals) and name.replace("-", "_").isidentifier()
        chains[name if named else text] = rest if named else text
    settings = {name: given[name] for name in ("samples", "repeats", "max_new_tokens", "batch") if given[name]}
    settings |= {"sampling": True} if given["sampling"] else {}
    data = {"models": given["model"] or ["smollm2-135m"], "chains": chains, "tasks": given["task"] or []}
    data |= {"defaults": settings} | ({"seeds": given["seed"]} if given["seed"] else {})
    return data | ({"cost": {"rounds": given["cost"]}} if given["cost"] else {})


def _carry_out(made: Run, out: Path, engine: Any, name: str, *, with_cost: bool) -> None:
    """Run what is missing, then report."""
    from logitkit.bench.config import preflight
    from logitkit.bench.execution.engine import carry_out, missing
    from logitkit.bench.execution.manifest import environment
    from logitkit.bench.execution.store import Store
    from logitkit.bench.execution.unit import plan
    from logitkit.bench.speed import cost

    console = Console(stderr=True, highlight=False)
    if too_long := preflight.overlong_samples(made):
        raise RunError("bench", too_long)
    with Store(out) as store:
        todo, every = missing(made, store), plan(made)
        rounds = cost.missing(made, store) if with_cost else []
        console.print(f"{out}: {len(every) - len(todo)} of {len(every)} units are there", markup=False, soft_wrap=True)
        if todo or rounds:
            store.begin(made, environment(name, executes=made.allow_code_execution))
        try:
            with progress_bar("bench", total=len(todo)) as units:

                def advance(unit: Any) -> None:
                    units.update(description=f"{unit.model} · {unit.chain} · {unit.task}")
                    units.advance()

                carry_out(made, store, engine=engine, advance=advance)
            if rounds:
                with progress_bar("cost", total=len(rounds)) as measured:
                    cost.carry_out(made, store, advance=lambda _: measured.advance())
        except KeyboardInterrupt:
            console.print(f"interrupted; the same command goes on from {out}", markup=False, soft_wrap=True)
            raise typer.Exit(130) from None
        _report(made, store, "")


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="The run file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of its results.")] = None,
    reading: Annotated[Path | None, typer.Option(help="A text to put first, paragraphs parted by blank lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and write no files.")] = False,
) -> None:
    """Write report.md and report.html anew from what is there; runs nothing."""
    import json

    from logitkit.bench.config import runfile
    from logitkit.bench.execution.store import Store
    from logitkit.bench.report.summary import summarise

    if not file.is_file():
        raise ParameterError("bench report", "FILE", "a run file", str(file))
    made = runfile.read(file, allow_code_execution=True)  # nothing is executed here
    out = out or Path("bench-results") / file.stem
    store = Store(out)
    if not store.records:
        raise ParameterError("bench report", "--out", "a folder with results", str(out), f"run: logitkit bench {file}")
    if reading is not None and not reading.is_file():
        raise ParameterError("bench report", "--reading", "a file that exists", str(reading))
    if as_json:
        typer.echo(json.dumps(summarise(made, store).as_data(), indent=2))
        return
    _report(made, store, reading.read_text(encoding="utf-8") if reading else "")


def _report(made: Run, store: Any, reading: str) -> None:
    """Show the summary and write it down."""
    import json

    from logitkit.bench.report.page import page
    from logitkit.bench.report.summary import summarise
    from logitkit.bench.report.tables import markdown, show

    summary = summarise(made, store)
    path = store.manifest(made)
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    show(summary, Console())
    for name, text in (
        ("report.md", markdown(summary, reading)),
        ("report.html", page(summary, manifest, store.sessions(made), reading)),
    ):
        (store.folder / name).write_text(text, encoding="utf-8")
        Console(stderr=True).print(f"{store.folder / name}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def tasks(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List all tasks."""
    import json

    from rich.table import Table

    from logitkit.registry.discovery import default_registry

    registry = default_registry()
    specs = [registry.describe_task(name) for name in registry.tasks()]
    if as_json:
        typer.echo(json.dumps([spec.as_data() for spec in specs], indent=2))
        return
    table = Table("name", "what it asks", "mode", "data", "source", "from")
    for spec in specs:
        table.add_row(spec.name, spec.summary, spec.mode, spec.data or "its own", spec.source, spec.plugin)
    Console().print(table)


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

    from logitkit.bench.speed import profile, random_models
    from logitkit.bench.speed.decoding_variants import select_variants
    from logitkit.bench.speed.measurement import measure, table

    if out is not None and not out.absolute().parent.is_dir():
        raise ParameterError("bench", "--out", "a file in a folder that exists", str(out))
    variants = select_variants(only or [])
    loaded, tokenizer = random_models.load(model, device=device, dtype=dtype)
    on_gpu = device.startswith("cuda")
    where = torch.cuda.get_device_name(device) if on_gpu else f"{torch.get_num_threads()} threads"
    tables = [f"torch {torch.__version__}, {model}, {dtype}, {device} ({where}), {rounds} rounds"]
    typer.echo(tables[0])
    for size in batch or [1, 4]:
        sized = {"batch": size, "tokens": tokens}
        with progress_bar(f"batch {size}", total=(rounds + 1) * len(variants)) as bar:
            timings = measure(loaded, tokenizer, variants, rounds=rounds, memory=memory, advance=bar.advance, **sized)
        tables.append(table(timings, **sized))
        typer.echo(f"\n{tables[-1]}")  # each as it is done: an interrupt loses the one being measured only
    for vocab, rows in itertools.product(profile.VOCABULARIES, profile.BATCHES) if processors else ():
        tables.append(profile.table(vocab, rows, profile.profile(vocab, rows, device=device)))
        typer.echo(f"\n{tables[-1]}")
    if out is not None:
        out.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
