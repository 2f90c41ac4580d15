"""The last tokens of a sequence as text, with the facts that decide which tokens can follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logitkit.processors.tokens.pretokenizer import Pretokenizer, Span

RUN = 4  # letters of one class inside a token; a heuristic: no known pattern counts longer runs


@dataclass(frozen=True, eq=False, kw_only=True)
class Window:
    """The last tokens of a sequence as text.

    Attributes:
        text: the complete characters of the tokens.
        starts: offset at which each token starts, in characters; -1 for a token that starts inside a character.
        joinable: for each token, whether the merge rule allows this token after the preceding one inside a word; True
            for the first token.
        taken_whole: for each token, whether the tokens from this one to the end are several and spell a word that the
            tokenizer writes as one token (``ignore_merges``).
        added: spans of added tokens.
        open_bytes: bytes of an incomplete character at the end.
        last: the last token; None at the start of a text.
    """

    text: str
    starts: tuple[int, ...]
    joinable: tuple[bool, ...]
    taken_whole: tuple[bool, ...]
    added: frozenset[Span]
    open_bytes: bytes
    last: int | None

    def boundaries(self) -> Iterator[tuple[int, bool]]:
        """Yield the offset of each boundary between two tokens, and whether it can lie inside a word."""
        return zip(self.starts[1:], self.joinable[1:], strict=True)


def shortened(window: Window, pretokenizer: Pretokenizer) -> Window:
    """Return the window with long runs of letters inside a token shortened to `RUN` letters."""
    kept: list[int] = []  # offsets of the characters that are kept
    for place in range(len(window.text)):
        run = window.text[place - RUN : place + 1] if place >= RUN else ""
        inside = not any(start in range(place - RUN + 1, place + 1) for start in window.starts)
        if not (run.isalpha() and inside and len({pretokenizer.class_of(char) for char in run}) == 1):
            kept.append(place)
    if len(kept) == len(window.text):
        return window
    moved = {place: new for new, place in enumerate(kept)} | {len(window.text): len(kept), -1: -1}
    return dataclasses.replace(
        window,
        text="".join(window.text[place] for place in kept),
        starts=tuple(moved[start] for start in window.starts),
        added=frozenset((moved[start], moved[end]) for start, end in window.added),
    )


def character_classes(window: Window, pretokenizer: Pretokenizer) -> tuple[Any, ...]:
    """Return the class of each character; where a text has an opener, letters of contractions have separate classes."""
    fine = pretokenizer.literal.anywhere(window.text)
    return tuple(pretokenizer.class_of(char, fine=fine) for char in window.text)
