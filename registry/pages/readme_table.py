"""The table of processors in the README, written from the Specs.

python -m logitkit.registry.pages.readme_table README.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from logitkit.registry.discovery import discover

BEGIN, END = "<!-- processors: begin -->", "<!-- processors: end -->"


def table() -> str:
    """The built-in processors as a Markdown table; transformers' own share a line."""
    registry = discover(third_party="none")
    specs = [registry.describe(name) for name in registry.names()]
    lines = ["| name | what it does | extra forwards a token | source |", "|---|---|---|---|"]
    for spec in sorted((s for s in specs if s.family != "transformers"), key=lambda s: (s.family, s.name)):
        lines.append(f"| `{spec.name}` | {spec.summary} | {spec.cost} | {spec.source} |")
    theirs = ", ".join(f"`{spec.name}`" for spec in specs if spec.family == "transformers")
    lines.append(f"| {theirs} | transformers' own, in the order you write them | none | transformers |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """Put the table between the two marks of a text."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
