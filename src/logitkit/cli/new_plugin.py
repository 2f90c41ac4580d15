"""``logitkit new-plugin``: start a plugin from a template."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli import options
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line
from logitkit.registry.discovery import default_registry

EXAMPLES = ("logitkit new-plugin quiet_words",)


def new_plugin(
    name: Annotated[str, typer.Argument(help="The processor's name in snake_case.")],
    folder: Annotated[Path | None, typer.Option(help="Folder to write; by default ./logitkit-NAME.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write an installable plugin: a processor, its Spec and its tests."""
    from logitkit.cli.plugin_template import write_plugin

    plugin = write_plugin(name, default_registry(), folder)
    if as_json:
        files = [str(path) for path in plugin.files]
        print_json({"name": name, "folder": str(plugin.folder), "files": files, "processor": str(plugin.processor)})
        return
    for path in plugin.files:
        print_line(f"  {path}")
    print_line(f"\nNext steps:\n  cd {plugin.folder}\n  pip install -e '.[test]' && pytest\n  logitkit check {name}")
    print_line(f"The formula is in {plugin.processor.relative_to(plugin.folder)}.")
