"""Line breaks between words for text that appears piece by piece on a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable

from rich.cells import cell_len

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")


class WordWrap:
    r"""Writes pieces of text and begins a new line where a word would pass the edge of the terminal.

    A space at which a line breaks is dropped. A word longer than a line is left to the terminal. A word may arrive in
    several pieces; a piece that continues a word already written stays on its line.

    Args:
        write: called with each piece, line breaks included.
        width: columns of the terminal.

    >>> pieces = []
    >>> wrap = WordWrap(pieces.append, 9)
    >>> for piece in ("One two ", "three ", "four.\n", "Five"):
    ...     wrap(piece)
    >>> "".join(pieces)
    'One two\nthree\nfour.\nFive'
    """

    def __init__(self, write: Callable[[str], None], width: int) -> None:
        self._write, self._width = write, width
        self._column = 0
        self._space = ""  # held back until the next word shows whether the line breaks there

    def __call__(self, text: str) -> None:
        """Write a piece of text."""
        self._write("".join(map(self._placed, _PARTS.findall(text))))

    def _placed(self, part: str) -> str:
        """Return what to write for a line break, white space or a word."""
        if part == "\n":
            self._column, self._space = 0, ""
            return part
        if part.isspace():
            self._space += part.expandtabs(4)
            return ""
        space, self._space = self._space, ""
        length = cell_len(part)
        if space and self._column and self._column + len(space) + length > self._width:
            self._column = length
            return "\n" + part
        self._column = (self._column + len(space) + length - 1) % self._width + 1  # the terminal breaks long words
        return space + part
