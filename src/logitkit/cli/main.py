"""The command line: find processors, read about them, check them, run them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import logitkit
from logitkit.cli import bench as bench_cli
from logitkit.cli import inspect as cli_inspect
from logitkit.cli import lm_eval as cli_lm_eval
from logitkit.cli import models as models_cli
from logitkit.cli import ngram as ngram_cli
from logitkit.cli import plugin as plugin_cli
from logitkit.cli import router as router_cli
from logitkit.cli import run as cli_run
from logitkit.errors import LogitkitError
from logitkit.registry.discovery import default_registry
from logitkit.registry.pages import man_page as manual

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Refusing(typer.core.TyperGroup):
    """A group of commands that prints our own errors as one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what logitkit refuses ends with exit status 2."""
        try:
            return super().invoke(ctx)
        except LogitkitError as error:
            Console(stderr=True, highlight=False).print(f"[red]error:[/] {_plain(str(error))}", soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=Refusing,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decoding strategies as plugins for Hugging Face generate.",
)
app.add_typer(models_cli.app, name="models", help="Models to try things on: list, pull, path.")
app.add_typer(bench_cli.app, name="bench", help="Measure decoding strategies side by side.")
app.command(name="demo")(cli_run.demo)
app.command(name="run")(cli_run.run)
app.command(name="inspect")(cli_inspect.inspect)
app.command(name="lm-eval", context_settings=cli_lm_eval.THROUGH, add_help_option=False)(cli_lm_eval.lm_eval)
app.command(name="check")(plugin_cli.check)
app.command(name="new-plugin")(plugin_cli.new_plugin)
app.command(name="train-ngram")(ngram_cli.train_ngram)
app.command(name="label-divergence")(router_cli.label_divergence)
app.command(name="train-router")(router_cli.train_router)


def _plain(text: str) -> str:
    """Text that rich prints as it stands."""
    return text.replace("[", r"\[")


@app.command(name="list")
def list_names(as_json: AsJson = False) -> None:
    """List all processors."""
    specs = [logitkit.describe(name) for name in logitkit.names()]
    if as_json:
        typer.echo(json.dumps([spec.as_data(schema=False) for spec in specs], indent=2))
        return
    table = Table("name", "what it does", "extra forwards a token", "source", "from")
    for spec in sorted(specs, key=lambda spec: (spec.family == "transformers", spec.family, spec.name)):
        table.add_row(spec.name, spec.summary, spec.cost, spec.source, spec.plugin)
    Console().print(table)


@app.command()
def show(name: str, as_json: AsJson = False) -> None:
    """Show one processor: formula, parameters, cost, limits."""
    spec = logitkit.describe(name)
    if as_json:
        typer.echo(json.dumps(spec.as_data(), indent=2))
        return
    console = Console(highlight=False)
    for title, text in manual.sections(spec):
        if text:
            console.print(f"[bold]{title}[/]")
            console.print("\n".join(f"    {_plain(line)}" for line in text.split("\n")), soft_wrap=True)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say which plugins work and which are broken; exit status 1 when one is."""
    plugins = default_registry().plugins
    if as_json:
        told = [{"name": p.name, "from": p.origin, "fault": p.fault, "error": p.traceback} for p in plugins]
        rows = [one | {"offers": p.offers} for one, p in zip(told, plugins, strict=True)]
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table("plugin", "from", "offers")
        for plugin in plugins:
            offers = f"[red]{_plain(plugin.fault)}[/]" if plugin.error else ", ".join(plugin.offers)
            table.add_row(plugin.name, plugin.origin, offers)
        console = Console(highlight=False)
        console.print(table)
        for plugin in plugins:
            if plugin.error:
                console.print(f"[bold]{plugin.name}[/] ({plugin.origin})\n{_plain(plugin.traceback)}", soft_wrap=True)
    raise typer.Exit(1 if any(plugin.error for plugin in plugins) else 0)
