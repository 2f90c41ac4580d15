"""``logitkit bench tasks``: all installed tasks."""

from __future__ import annotations

from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_table, with_origin
from logitkit.registry.discovery import default_registry
from logitkit.tables import FittedTable


def tasks(as_json: options.AsJson = False) -> None:
    """List all installed tasks."""
    registry = default_registry()
    specs = [registry.describe_task(name) for name in registry.tasks()]
    if as_json:
        print_json([spec.as_data() for spec in specs])
        return
    optional = ("source", "mode", "data")
    table = FittedTable("name", "what it measures", "mode", "data", "source", optional=optional)
    for spec in specs:
        about = with_origin(spec.summary, spec.plugin)
        table.add_row(spec.name, about, spec.mode, spec.data or "built in", spec.source)
    print_table(table)
