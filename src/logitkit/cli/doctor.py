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
from logitkit.cli.rendering import print_remark, print_table
from logitkit.registry.discovery import discover
from logitkit.registry.plugin_probe import probe
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.template_texts import unedited
from logitkit.tables import FittedTable

EXAMPLES = ("logitkit doctor --examples --time-limit 120",)


def doctor(
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds that a plugin may take to be loaded.")] = 60.0,
    examples: Annotated[
        bool,
        typer.Option("--examples", help="Also generate a few tokens with the example of each of their processors."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the installed plugins and their errors. The exit status is 1 when a plugin is broken.

    Each plugin of another distribution is loaded in a process of its own first, with the classes that it offers, and
    with --examples each example runs there on a tiny model. Texts that are still those of the template are named.
    """
    plugins = examined_registry(time_limit, examples).plugins
    if as_json:
        print_json([_as_data(plugin) for plugin in plugins])
    else:
        _print_table(plugins)
    raise typer.Exit(1 if any(plugin.error for plugin in plugins) else 0)


def examined_registry(time_limit: float, examples: bool = False) -> Registry:
    """Return the registry, in which a plugin that does not return, or with a broken target or example, is broken."""
    chosen = os.environ.get("LOGITKIT_PLUGINS", "all")
    trial = "logitkit.registry.laws.examples:run_example" if examples else ""
    examine = functools.partial(probe, time_limit=time_limit, trial=trial)
    return discover(third_party=chosen, examine=examine)


def notes(plugin: Plugin) -> list[str]:
    """Return a sentence for each processor whose texts are still those of the template of ``new-plugin``."""
    return [note for spec in plugin.specs if (note := unedited(spec))]


def _as_data(plugin: Plugin) -> dict[str, object]:
    """Return a plugin as plain data."""
    return {
        "name": plugin.name,
        "from": plugin.origin,
        "fault": plugin.fault,
        "error": plugin.traceback,
        "offers": plugin.offers,
        "notes": notes(plugin),
    }


def _print_table(plugins: tuple[Plugin, ...]) -> None:
    """Print a table of all plugins, then the traceback of each broken one."""
    console = Console(highlight=False)
    table = FittedTable("plugin", "distribution", "offers")
    for plugin in plugins:
        offers = Text(plugin.fault, style="red") if plugin.error else Text(", ".join(plugin.offers))
        table.add_row(Text(plugin.name), Text(plugin.origin), offers)
    print_table(table)
    for note in (note for plugin in plugins for note in notes(plugin)):
        print_remark(f"note: {note}")
    for plugin in plugins:
        if plugin.error:
            heading = Text.assemble((plugin.name, "bold"), f" ({plugin.origin})")
            console.print(heading, Text(plugin.traceback), sep="\n", soft_wrap=True)
