"""``logitkit schema``: the JSON Schema of chains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli.inputs import check_output
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line
from logitkit.files import replace_file
from logitkit.registry import chain_schema

EXAMPLES = ("logitkit schema --out chain.schema.json",)


def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write, *.json, instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of chains with the parameters of everything installed.

    Editors check chain files against it while you write, and other programs before they send a chain.
    """
    check_output("schema", "--out", out, ".json")
    if out is None:
        print_json(chain_schema())
        return
    with replace_file(out) as part:
        part.write_text(json.dumps(chain_schema(), indent=2) + "\n", encoding="utf-8")
    print_line(f"{out}: the schema", stderr=True)
