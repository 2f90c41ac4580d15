"""An extension of griffe: examples below ``Example:`` or without a heading become a docstring's section of examples."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Arguments|Attributes|Returns|Raises|Yields|Examples?|Note|Warns|At each .*):\s*$")


class BareExamples(griffe.Extension):
    """Puts a heading above the first ``>>>`` of a docstring that has none."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = with_heading(obj.docstring.value)


def with_heading(docstring: str) -> str:
    """Return a docstring whose examples stand under ``Examples:``."""
    lines = re.sub(r"^Example:$", "Examples:", docstring, flags=re.MULTILINE).split("\n")
    found: list[str] = []
    open_example = False
    for line in lines:
        starts = line.startswith(">>> ")
        if starts and not open_example:
            found += ["Examples:"]
            open_example = True
        elif open_example and SECTION.match(line):
            open_example = False
        found.append(f"    {line}" if open_example and line else line)
    return "\n".join(found)
