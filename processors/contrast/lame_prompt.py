"""Lame prompts: a prompt without its input/output examples, for the second stream of USCD.

arXiv:2409.05923, section on prompt construction. Departure: the authors ask a chat model to remove the examples and
publish the results. Here deterministic rules remove them, so that any prompt can be stripped without a download. On
the authors' benchmark these rules keep more of the requirements than the published files do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from logitkit.processors.contrast.example_lines import example_lines

# The body may end with the text: a prompt often stops inside a docstring that the model is to complete.
_STRING = re.compile(
    r'(?P<open>"""|\'\'\')(?P<body>(?s:\\.|.)*?)(?P<close>(?P=open)|\Z)'
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*"
)
_CODE = re.compile(r"(?:from\s+[\w.]+\s+import|import\s+\w|(?:async\s+)?def\s+\w|class\s+\w|@\w|[rRuU]?(?:\"\"\"|'''))")
_DEF = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Stripped:
    """A prompt without its examples, as `strip_examples` returns it.

    Attributes:
        text: the remaining text.
        removed: the removed pieces, in order, word for word, without the line breaks at their ends.

    Example:
        >>> Stripped("Add one.", (">>> f(1)",)).changed
        True
    """

    text: str
    removed: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether an example was removed."""
        return bool(self.removed)


def strip_examples(text: str) -> Stripped:
    r"""Return a text without its input/output examples.

    In Python code only docstrings are searched; their quotes and the indent of the closing quotes are kept. In any
    other text all lines are searched, and docstrings inside the text too. A text that consists of examples only is
    returned unchanged.

    Args:
        text: a prompt.

    Example:
        >>> strip_examples("Double it.\nInput: 3\nOutput: 6\n")
        Stripped(text='Double it.\n', removed=('Input: 3\nOutput: 6',))
    """
    removed: tuple[str, ...] = ()
    while True:  # the removal of one piece can make two others adjacent, which the rules then recognise
        shorter, pieces = _strip_once(text)
        if not pieces or not shorter.strip():
            return Stripped(text, removed)
        text, removed = shorter, removed + pieces


def strip_messages(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    r"""Return chat messages without the examples in the user's and the system's messages, and the removed pieces.

    Args:
        messages: ``{"role": ..., "content": text or list of parts}``. Only parts of type ``text`` are searched.

    Returns:
        new messages, and the removed pieces of all messages in order.

    Example:
        >>> strip_messages([{"role": "user", "content": "Double it.\nInput: 3\nOutput: 6\n"}])
        ([{'role': 'user', 'content': 'Double it.\n'}], ('Input: 3\nOutput: 6',))
    """
    removed: list[str] = []

    def strip_text(text: str) -> str:
        result = strip_examples(text)
        removed.extend(result.removed)
        return result.text

    def strip_content(content: Any) -> Any:
        if isinstance(content, str):
            return strip_text(content)
        if not isinstance(content, list):
            return content
        return [{**part, "text": strip_text(part["text"])} if _is_text_part(part) else part for part in content]

    stripped = [
        {**message, "content": strip_content(message.get("content"))}
        if message.get("role") in ("user", "system") and "content" in message
        else dict(message)
        for message in messages
    ]
    return stripped, tuple(removed)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


@dataclass(frozen=True)
class _DocstringBody:
    """Position of the text between the quotes of a docstring.

    Attributes:
        first_line: index of the line with the opening quotes.
        start: column after the opening quotes.
        last_line: index of the line with the closing quotes.
        stop: column of the closing quotes.
    """

    first_line: int
    start: int
    last_line: int
    stop: int

    @property
    def lines(self) -> range:
        """Indices of all its lines."""
        return range(self.first_line, self.last_line + 1)


def _strip_once(text: str) -> tuple[str, tuple[str, ...]]:
    """Remove the examples that one pass over the lines recognises; return the remaining text and the pieces."""
    lines = text.split("\n")
    bodies = list(_docstring_bodies(text))
    function_names = _DEF.findall(text)
    plain = set() if _is_code(lines) else _examples_outside_docstrings(lines, bodies, function_names)
    kept: list[str | None] = [None if i in plain else line for i, line in enumerate(lines)]
    removed = {i: lines[i] for i in plain}
    for body in bodies:
        if plain.isdisjoint(body.lines):
            _strip_docstring(lines, body, function_names, kept, removed)
    pieces = tuple("\n".join(removed[i] for i in run) for run in _consecutive_runs(removed))
    return "\n".join(line for line in kept if line is not None), pieces


def _examples_outside_docstrings(
    lines: list[str], bodies: list[_DocstringBody], function_names: Collection[str]
) -> set[int]:
    """Return the indices of example lines; lines of docstrings count as code, in which no rule finds an example."""
    inside = {i for body in bodies for i in body.lines}
    return example_lines(["code" if i in inside else line for i, line in enumerate(lines)], function_names)


def _strip_docstring(
    lines: list[str],
    body: _DocstringBody,
    function_names: Collection[str],
    kept: list[str | None],
    removed: dict[int, str],
) -> None:
    """Move the example lines of one docstring from ``kept`` to ``removed``; its quotes and their indent are kept."""
    inner = lines[body.first_line : body.last_line + 1]
    inner[-1] = inner[-1][: body.stop]
    inner[0] = inner[0][body.start :]
    for i in example_lines(inner, function_names):
        line, is_last = body.first_line + i, i == len(inner) - 1
        if not inner[i].strip() and (is_last or i == 0):
            continue
        removed[line], kept[line] = inner[i], None
        opening = lines[line][: body.start] if i == 0 else ""
        closing = lines[line][body.stop :] if is_last else ""
        if is_last and i:
            closing = inner[i][: len(inner[i]) - len(inner[i].lstrip())] + closing
        if i == 0 or is_last:
            kept[line] = opening + closing


def _docstring_bodies(text: str) -> Iterator[_DocstringBody]:
    """Yield the triple-quoted strings that start a line; assigned strings (``FIX = ...``) are skipped."""
    for match in _STRING.finditer(text):
        line_start = text.rfind("\n", 0, match.start()) + 1
        if match["open"] and text[line_start : match.start()].strip(" \trRuU") == "":
            start, stop = match.span("body")
            first, last = text.count("\n", 0, start), text.count("\n", 0, stop)
            yield _DocstringBody(first, start - line_start, last, stop - (text.rfind("\n", 0, stop) + 1))


def _is_code(lines: list[str]) -> bool:
    """Return whether the first line that is not a comment starts Python code."""
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return _CODE.match(first) is not None


def _consecutive_runs(indices: Iterable[int]) -> list[list[int]]:
    """Split indices into runs of consecutive numbers."""
    pairs = groupby(enumerate(sorted(indices)), lambda pair: pair[1] - pair[0])
    return [[i for _, i in run] for _, run in pairs]
