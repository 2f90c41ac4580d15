"""``logitkit new-plugin``: start a plugin of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from logitkit.registry.discovery import default_registry


def new_plugin(
    name: Annotated[str, typer.Argument(help="The processor's name, snake_case.")],
    folder: Annotated[Path | None, typer.Option(help="Where; by default ./logitkit-NAME.")] = None,
) -> None:
    """Write a plugin of your own: a processor, its Spec, its tests, ready to install."""
    from logitkit.plugin_template import write_plugin

    where, files = write_plugin(name, default_registry(), folder)
    console = Console(highlight=False)
    for path in files:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(f"\nNow:\n  cd {where}\n  pip install -e '.[test]' && pytest", markup=False, soft_wrap=True)
    console.print(f"  logitkit check {name}\nThe formula is in {files[4].relative_to(where)}.", markup=False)
