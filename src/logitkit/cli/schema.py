"""``logitkit schema``: the JSON Schema of chains."""

from __future__ import annotations

from logitkit.cli.json_output import print_json
from logitkit.registry import chain_schema

EXAMPLES = ("logitkit schema > chain.schema.json",)


def schema() -> None:
    """Print the JSON Schema of chains with the parameters of everything installed.

    Editors check chain files against it while you write, and other programs before they send a chain.
    """
    print_json(chain_schema())
