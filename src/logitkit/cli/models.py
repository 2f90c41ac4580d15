"""The command line of models: ``logitkit models list | pull NAME | path NAME``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from logitkit.errors import LogitkitError

app = typer.Typer(help="Models known by name: which there are, getting one, and where it is.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A name from `logitkit models list`.")]


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except LogitkitError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the known models and whether they are cached."""
    from logitkit import models

    with _refusals():
        described = [models.describe(name) for name in models.names()]
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    table = Table("name", "download", "licence", "cached", "what it is", box=None)
    for entry in described:
        size, cached = f"{entry['download_bytes'] / 1e6:.0f} MB", "yes" if entry["cached"] else "no"
        table.add_row(entry["name"], size, entry["licence"], cached, entry["summary"])
    Console().print(table)


@app.command()
def pull(name: Name, quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False) -> None:
    """Download a model unless it is cached; print its folder."""
    from logitkit import models

    with _refusals():
        typer.echo(models.pull(name, progress=not quiet))


@app.command()
def path(
    name: Name, verify: Annotated[bool, typer.Option("--verify", help="Check every file's sha256.")] = False
) -> None:
    """Print the folder of a cached model."""
    from logitkit import models

    with _refusals():
        typer.echo(models.verify(name) if verify else models.path(name))
