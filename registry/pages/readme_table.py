"""The table of processors in the README, generated from the Specs.

python -m logitkit.registry.pages.readme_table README.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from logitkit.registry.discovery import discover

BEGIN, END = "<!-- processors: begin -->", "<!-- processors: end -->"


def table() -> str:
    """Return the built-in processors as a Markdown table; those of transformers share a line."""
    registry = discover(third_party="none")
    specs = [registry.describe(name) for name in registry.names()]
    lines = ["| name | what it does | extra forwards a token | source |", "|---|---|---|---|"]
    for spec in sorted((s for s in specs if s.family != "transformers"), key=lambda s: (s.family, s.name)):
        lines.append(f"| `{spec.name}` | {spec.summary} | {spec.cost} | {spec.source} |")
    names = ", ".join(f"`{spec.name}`" for spec in specs if spec.family == "transformers")
    lines.append(f"| {names} | processors of transformers, applied in the order of the chain | none | transformers |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """Return a text with the table between its two marks."""
    head, _, after = text.partition(BEGIN)
    _, _, tail = after.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
