"""The last tokens of a sequence as text, and what the patterns of a pretokenizer can tell about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logitkit.processors.tokens.pretokenizer import Pretokenizer, Span

RUN = 4  # longer runs of letters inside a token tell a pretokenizer nothing


@dataclass(frozen=True, eq=False, kw_only=True)
class Window:
    """The last tokens as text.

    Attributes:
        text: its whole characters.
        starts: where each token begins, in characters; -1 inside a character.
        joined: whether the merge rule lets each token follow the one before it inside a word; the first: True.
        whole: whether the text from each token to the end is several tokens, but itself a token that is taken whole.
        added: the spans that are added tokens.
        open: bytes of a character that has begun at the end.
        last: the last token, or None at the start of the text.
    """

    text: str
    starts: tuple[int, ...]
    joined: tuple[bool, ...]
    whole: tuple[bool, ...]
    added: frozenset[Span]
    open: bytes
    last: int | None

    def seams(self) -> Iterator[tuple[int, bool]]:
        """Boundaries between two tokens: place (-1 inside a character), and whether it may lie inside a word."""
        return zip(self.starts[1:], self.joined[1:], strict=True)


def shortened(window: Window, pretokenizer: Pretokenizer) -> Window:
    """The same window with long runs of letters inside a token cut short: no pattern counts them."""
    kept: list[int] = []  # characters that stay
    for place in range(len(window.text)):
        run = window.text[place - RUN : place + 1] if place >= RUN else ""
        inside = not any(start in range(place - RUN + 1, place + 1) for start in window.starts)
        if not (run.isalpha() and inside and len({pretokenizer.kind(c) for c in run}) == 1):
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


def signature(window: Window, pretokenizer: Pretokenizer) -> tuple[Any, ...]:
    """What the patterns can tell about a window."""
    fine = "'" in window.text
    return tuple(pretokenizer.kind(char, fine=fine) for char in window.text)
