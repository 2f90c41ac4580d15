"""Passages of running text: a beginning, and what really follows."""

from __future__ import annotations

import re
from typing import Any

from logitkit.bench.tasks.task import Sample
from logitkit.errors import FileFormatError

_GUTENBERG = re.compile(r"\*\*\* ?(START|END) OF TH")


def passages(rows: list[dict[str, Any]], *, field: str, words: int, after: int) -> list[Sample]:
    """Cut texts into passages of ``words`` words and the ``after`` words behind them.

    Rows shorter than a passage are joined to the next. The licence texts of Project Gutenberg are left out.

    Raises:
        FileFormatError: a row without that field, or not one passage in all.
    """
    texts = []
    for number, row in enumerate(rows):
        if not isinstance(row.get(field), str):
            raise FileFormatError(f"passages: row {number} must hold text in {field!r}, got {sorted(row)}")
        texts.append(row[field])
    marks = [number for number, text in enumerate(texts) if _GUTENBERG.search(text)]
    if len(marks) >= 2:
        texts = texts[marks[0] + 1 : marks[-1]]
    found: list[Sample] = []
    gathered: list[str] = []
    for text in texts:
        gathered += text.split()
        if len(gathered) >= words + after:
            data = {"before": " ".join(gathered[:words]), "after": " " + " ".join(gathered[words : words + after])}
            found.append(Sample(id=str(len(found)), data=data))
            gathered = []
    if not found:
        raise FileFormatError(f"passages: the data must hold {words + after} words in a row, got fewer")
    return found


def halves(text: str) -> tuple[str, str]:
    """The two halves of a text, cut at a blank line."""
    middle = text.find("\n\n", len(text) // 2)
    middle = len(text) // 2 if middle < 0 else middle
    return text[:middle], text[middle:]
