"""``logitkit doctor``: which installed plugins work."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.text import Text

from logitkit.cli import options
from logitkit.cli.rendering import listing
from logitkit.registry.discovery import default_registry
from logitkit.registry.registry import Plugin


def doctor(as_json: options.AsJson = False) -> None:
    """List the installed plugins and their errors. The exit status is 1 when a plugin is broken."""
    plugins = default_registry().plugins
    if as_json:
        typer.echo(json.dumps([_as_data(plugin) for plugin in plugins], indent=2))
    else:
        _print_table(plugins)
    raise typer.Exit(1 if any(plugin.error for plugin in plugins) else 0)


def _as_data(plugin: Plugin) -> dict[str, object]:
    """Return a plugin as plain data."""
    return {
        "name": plugin.name,
        "from": plugin.origin,
        "fault": plugin.fault,
        "error": plugin.traceback,
        "offers": plugin.offers,
    }


def _print_table(plugins: tuple[Plugin, ...]) -> None:
    """Print a table of all plugins, then the traceback of each broken one."""
    console = Console(highlight=False)
    table = listing("plugin", "distribution", "offers")
    for plugin in plugins:
        offers = Text(plugin.fault, style="red") if plugin.error else Text(", ".join(plugin.offers))
        table.add_row(Text(plugin.name), Text(plugin.origin), offers)
    console.print(table)
    for plugin in plugins:
        if plugin.error:
            heading = Text.assemble((plugin.name, "bold"), f" ({plugin.origin})")
            console.print(heading, Text(plugin.traceback), sep="\n", soft_wrap=True)
