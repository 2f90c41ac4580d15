"""``logitkit list``: all installed processors, searches and selectors."""

from __future__ import annotations

import logitkit
from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_table, with_origin
from logitkit.tables import FittedTable


def list_processors(as_json: options.AsJson = False) -> None:
    """List all installed processors, searches and selectors."""
    specs = [logitkit.describe(name) for name in logitkit.names(kind=None)]
    if as_json:
        print_json([spec.as_data(schema=False) for spec in specs])
        return
    specs.sort(key=lambda spec: (spec.family == "transformers", spec.family, spec.name))  # those of transformers last
    headings = ("name", "what it does", "extra forwards", "source")
    table = FittedTable(*headings, optional=("source", "extra forwards"))
    for spec in specs:
        forwards, sources = spec.extra_forwards.replace("_", " "), spec.source.replace(", ", "\n")
        table.add_row(spec.name, with_origin(spec.summary, spec.plugin), forwards, sources)
    print_table(table)
