"""``logitkit bench tasks``: all installed tasks."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import listing, with_origin
from logitkit.registry.discovery import default_registry


def tasks(as_json: options.AsJson = False) -> None:
    """List all installed tasks."""
    registry = default_registry()
    specs = [registry.describe_task(name) for name in registry.tasks()]
    if as_json:
        print_json([spec.as_data() for spec in specs])
        return
    table = listing("name", "what it measures", "mode", "data", "source")
    for spec in specs:
        about = with_origin(spec.summary, spec.plugin)
        table.add_row(spec.name, about, spec.mode, spec.data or "built in", Text(spec.source))
    Console().print(table)
