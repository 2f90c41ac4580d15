"""``logitkit models list | pull NAME | path NAME``: the models that logitkit knows by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_table
from logitkit.errors import DownloadError, FileFormatError
from logitkit.tables import FittedTable

app = typer.Typer(
    help="List the models that logitkit knows by name, download them, print their folders.",
    no_args_is_help=True,
    epilog=options.examples(
        "logitkit models list", "logitkit models pull gemma-3-270m", "logitkit models path smollm2-135m --verify"
    ),
)

Name = Annotated[str, typer.Argument(help="A name from `logitkit models list`.")]


@contextmanager
def _damage_is_a_failure() -> Iterator[None]:
    """Report a damaged file of the cache, which nobody named, as a failure and not as a wrong command line."""
    try:
        yield
    except FileFormatError as error:
        raise DownloadError(str(error)) from error


@app.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the known models and whether they are cached."""
    from logitkit import models

    entries = [models.describe(name) for name in models.names()]
    if as_json:
        print_json(entries, indent=1)
        return
    table = FittedTable("name", "download", "licence", "cached", "description", optional=("licence",))
    for entry in entries:
        size, cached = f"{entry['download_bytes'] / 1e6:.0f} MB", "yes" if entry["cached"] else "no"
        table.add_row(entry["name"], size, entry["licence"], cached, entry["summary"])
    print_table(table)


@app.command()
def pull(name: Name, quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False) -> None:
    """Download a model unless it is cached, and print its folder."""
    from logitkit import models

    with _damage_is_a_failure():
        typer.echo(models.pull(name, progress=not quiet))


@app.command()
def path(
    name: Name, verify: Annotated[bool, typer.Option("--verify", help="Check the sha256 of every file.")] = False
) -> None:
    """Print the folder of a cached model."""
    from logitkit import models

    with _damage_is_a_failure():
        typer.echo(models.verify(name) if verify else models.path(name))
