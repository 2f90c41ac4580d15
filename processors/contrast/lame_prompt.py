"""Lame prompts: a prompt without its input/output examples, the second stream of USCD.

arXiv:2409.05923, section on prompt construction: the authors let a chat model remove the examples and ship
the result; these are deterministic rules instead, so that any prompt can be stripped and nothing is
downloaded. On their benchmark more of the real requirements stay than in the published files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from logitkit.processors.contrast.example_lines import example_lines

# A docstring left open by the end of the prompt counts: the model is to go on from inside it.
_STRING = re.compile(
    r'(?P<open>"""|\'\'\')(?P<body>(?s:\\.|.)*?)(?P<close>(?P=open)|\Z)'
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*"
)
_CODE = re.compile(r"(?:from\s+[\w.]+\s+import|import\s+\w|(?:async\s+)?def\s+\w|class\s+\w|@\w|[rRuU]?(?:\"\"\"|'''))")
_DEF = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Stripped:
    """A prompt without its examples.

    Args:
        text: what is left.
        removed: the pieces cut out, in order, word for word, without the line breaks at their ends.
    """

    text: str
    removed: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was removed."""
        return bool(self.removed)


def strip_examples(text: str) -> Stripped:
    """Return `text` without its input/output examples.

    In Python code only docstrings are searched, and they stay closed and indented; in any other text
    everything is, docstrings inside it too. A text that would be left empty keeps its examples.
    """
    removed: tuple[str, ...] = ()
    while True:  # what stood apart may touch once a piece is gone
        shorter, pieces = _strip_once(text)
        if not pieces or not shorter.strip():
            return Stripped(text, removed)
        text, removed = shorter, removed + pieces


def strip_messages(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return chat messages without the examples in what the user and the system say, and what was removed.

    Args:
        messages: ``{"role": ..., "content": str or list of parts}``; only parts of type ``text`` are read.
    """
    removed: list[str] = []

    def stripped(text: str) -> str:
        result = strip_examples(text)
        removed.extend(result.removed)
        return result.text

    def bare(content: Any) -> Any:
        if isinstance(content, str):
            return stripped(content)
        if not isinstance(content, list):
            return content
        return [
            {**part, "text": stripped(part["text"])}
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            else part
            for part in content
        ]

    kept = [
        {**message, "content": bare(message.get("content"))}
        if message.get("role") in ("user", "system") and "content" in message
        else dict(message)
        for message in messages
    ]
    return kept, tuple(removed)


@dataclass(frozen=True)
class _Docstring:
    """Where a docstring's inside lies: from a column of its first line to a column of its last."""

    first: int
    start: int
    last: int
    stop: int


def _strip_once(text: str) -> tuple[str, tuple[str, ...]]:
    lines = text.split("\n")
    docstrings = list(_docstrings(text))
    names = _DEF.findall(text)
    gone = set() if _is_code(lines) else _plain_examples(lines, docstrings, names)
    kept: list[str | None] = [None if i in gone else line for i, line in enumerate(lines)]
    cut = {i: lines[i] for i in gone}
    for place in docstrings:
        if not gone.intersection(range(place.first, place.last + 1)):
            _cut_docstring(lines, place, names, kept, cut)
    pieces = tuple("\n".join(cut[i] for i in run) for run in _runs(cut))
    return "\n".join(line for line in kept if line is not None), pieces


def _plain_examples(lines: list[str], docstrings: list[_Docstring], names: Collection[str]) -> set[int]:
    inside = {i for place in docstrings for i in range(place.first, place.last + 1)}
    return example_lines(["code" if i in inside else line for i, line in enumerate(lines)], names)


def _cut_docstring(
    lines: list[str], place: _Docstring, names: Collection[str], kept: list[str | None], cut: dict[int, str]
) -> None:
    """Move the example lines of one docstring from `kept` to `cut`; its quotes stay, the last ones indented."""
    inner = lines[place.first : place.last + 1]
    inner[-1] = inner[-1][: place.stop]
    inner[0] = inner[0][place.start :]
    for i in example_lines(inner, names):
        here, ends = place.first + i, i == len(inner) - 1
        if not inner[i].strip() and (ends or i == 0):
            continue
        cut[here], kept[here] = inner[i], None
        opening = lines[here][: place.start] if i == 0 else ""
        closing = lines[here][place.stop :] if ends else ""
        if ends and i:
            closing = inner[i][: len(inner[i]) - len(inner[i].lstrip())] + closing
        if i == 0 or ends:
            kept[here] = opening + closing


def _docstrings(text: str) -> Iterator[_Docstring]:
    """Triple-quoted strings that start a line; values (``FIX = ...``) are no prompt."""
    for match in _STRING.finditer(text):
        begin = text.rfind("\n", 0, match.start()) + 1
        if match["open"] and text[begin : match.start()].strip(" \trRuU") == "":
            start, stop = match.span("body")
            first, last = text.count("\n", 0, start), text.count("\n", 0, stop)
            yield _Docstring(first, start - begin, last, stop - (text.rfind("\n", 0, stop) + 1))


def _is_code(lines: list[str]) -> bool:
    """Whether the first line that is no comment starts Python code."""
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return _CODE.match(first) is not None


def _runs(places: Iterable[int]) -> list[list[int]]:
    """Runs of neighbours among `places`."""
    pairs = groupby(enumerate(sorted(places)), lambda pair: pair[1] - pair[0])
    return [[i for _, i in run] for _, run in pairs]
