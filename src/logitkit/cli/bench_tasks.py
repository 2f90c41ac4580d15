"""``logitkit bench tasks``: all installed tasks."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from logitkit.cli import options
from logitkit.cli.rendering import listing
from logitkit.registry.discovery import default_registry


def tasks(as_json: options.AsJson = False) -> None:
    """List all installed tasks."""
    registry = default_registry()
    specs = [registry.describe_task(name) for name in registry.tasks()]
    if as_json:
        typer.echo(json.dumps([spec.as_data() for spec in specs], indent=2))
        return
    rows = [(spec.name, spec.summary, spec.mode, spec.data or "built in", spec.source, spec.plugin) for spec in specs]
    Console().print(listing(("name", "what it measures", "mode", "data", "source", "plugin"), rows))
