"""``logitkit doctor``: which installed plugins work."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from logitkit.cli import options
from logitkit.cli.rendering import escape_markup, listing
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
        offers = f"[red]{escape_markup(plugin.fault)}[/]" if plugin.error else ", ".join(plugin.offers)
        table.add_row(plugin.name, plugin.origin, offers)
    console.print(table)
    for plugin in plugins:
        if plugin.error:
            traceback = escape_markup(plugin.traceback)
            console.print(f"[bold]{plugin.name}[/] ({plugin.origin})\n{traceback}", soft_wrap=True)
