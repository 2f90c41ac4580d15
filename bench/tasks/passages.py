"""Passages of running text: a beginning and the text that follows it."""

from __future__ import annotations

import re
from typing import Any

from logitkit.bench.tasks.task import Sample
from logitkit.errors import FileFormatError

_GUTENBERG = re.compile(r"\*\*\* ?(START|END) OF TH")


def cut_passages(rows: list[dict[str, Any]], *, field: str, words: int, after: int) -> list[Sample]:
    """Cut texts into samples with the fields ``before`` and ``after``.

    Rows shorter than a passage are joined with the next rows. The licence texts of Project Gutenberg are left out.

    Args:
        rows: the data.
        field: field of a row that holds its text.
        words: number of words in ``before``.
        after: number of words in ``after``.

    Raises:
        FileFormatError: a row lacks the field, or the data do not hold one passage.

    Examples:
        >>> [sample.data for sample in cut_passages([{"text": "a b c d"}], field="text", words=2, after=1)]
        [{'before': 'a b', 'after': ' c'}]
    """
    texts = []
    for number, row in enumerate(rows):
        if not isinstance(row.get(field), str):
            raise FileFormatError(f"passages: row {number} must hold text in {field!r}, got {sorted(row)}")
        texts.append(row[field])
    marks = [number for number, text in enumerate(texts) if _GUTENBERG.search(text)]
    if len(marks) >= 2:
        texts = texts[marks[0] + 1 : marks[-1]]
    samples: list[Sample] = []
    gathered: list[str] = []
    for text in texts:
        gathered += text.split()
        if len(gathered) >= words + after:
            data = {"before": " ".join(gathered[:words]), "after": " " + " ".join(gathered[words : words + after])}
            samples.append(Sample(id=str(len(samples)), data=data))
            gathered = []
    if not samples:
        raise FileFormatError(f"passages: the data must hold {words + after} words in a row, got fewer")
    return samples


def halves(text: str) -> tuple[str, str]:
    r"""Return the two halves of a text, cut at the first blank line after its middle.

    Examples:
        >>> halves("aaaa\n\nbb\n\ncc")
        ('aaaa\n\nbb', '\n\ncc')
    """
    middle = text.find("\n\n", len(text) // 2)
    middle = len(text) // 2 if middle < 0 else middle
    return text[:middle], text[middle:]
