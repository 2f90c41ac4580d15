"""``logitkit list``: all installed processors."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

import logitkit
from logitkit.cli import options


def list_processors(as_json: options.AsJson = False) -> None:
    """List all installed processors."""
    specs = [logitkit.describe(name) for name in logitkit.names()]
    if as_json:
        typer.echo(json.dumps([spec.as_data(schema=False) for spec in specs], indent=2))
        return
    table = Table("name", "what it does", "extra forwards per token", "source", "plugin")
    # The processors of transformers come last.
    for spec in sorted(specs, key=lambda spec: (spec.family == "transformers", spec.family, spec.name)):
        table.add_row(spec.name, spec.summary, spec.cost, spec.source, spec.plugin)
    Console().print(table)
