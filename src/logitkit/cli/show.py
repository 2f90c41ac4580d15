"""``logitkit show``: the manual page of one processor."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

import logitkit
from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.registry.pages import man_page

EXAMPLES = ("logitkit show uscd", "logitkit show top_p --json")


def show(
    name: Annotated[str, typer.Argument(help="A processor's name, see `logitkit list`.")],
    as_json: options.AsJson = False,
) -> None:
    """Show one processor: formula, parameters, cost, limits and source."""
    spec = logitkit.describe(name)
    if as_json:
        print_json(spec.as_data())
        return
    console = Console(highlight=False)
    for title, text in man_page.sections(spec):
        if text:
            console.print(f"[bold]{title}[/]")
            for line in text.split("\n"):
                indent = 4 + len(line) - len(line.lstrip())
                if console.is_terminal:
                    console.print(Padding(Text(line.lstrip()), (0, 0, 0, indent)))
                else:
                    console.print(" " * indent + line.lstrip(), markup=False, soft_wrap=True)
