"""``logitkit doctor``: which installed plugins work."""

from __future__ import annotations

import functools
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_table
from logitkit.registry.discovery import discover
from logitkit.registry.plugin_probe import probe
from logitkit.registry.registry import Plugin, Registry
from logitkit.tables import FittedTable


def doctor(
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds that a plugin may take to be loaded.")] = 60.0,
    as_json: options.AsJson = False,
) -> None:
    """List the installed plugins and their errors. The exit status is 1 when a plugin is broken.

    Each plugin of another distribution is loaded in a process of its own first, with the classes that it offers.
    """
    plugins = examined_registry(time_limit).plugins
    if as_json:
        print_json([_as_data(plugin) for plugin in plugins])
    else:
        _print_table(plugins)
    raise typer.Exit(1 if any(plugin.error for plugin in plugins) else 0)


def examined_registry(time_limit: float) -> Registry:
    """Return the registry, in which a plugin that does not return, or whose targets are broken, is broken too."""
    chosen = os.environ.get("LOGITKIT_PLUGINS", "all")
    return discover(third_party=chosen, examine=functools.partial(probe, time_limit=time_limit))


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
    table = FittedTable("plugin", "distribution", "offers")
    for plugin in plugins:
        offers = Text(plugin.fault, style="red") if plugin.error else Text(", ".join(plugin.offers))
        table.add_row(Text(plugin.name), Text(plugin.origin), offers)
    print_table(table)
    for plugin in plugins:
        if plugin.error:
            heading = Text.assemble((plugin.name, "bold"), f" ({plugin.origin})")
            console.print(heading, Text(plugin.traceback), sep="\n", soft_wrap=True)
