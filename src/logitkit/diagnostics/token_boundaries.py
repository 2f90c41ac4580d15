"""Where the tokens of a text end, in bytes, and how often the boundaries of two tokenizers disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from logitkit.processors.tokens import Vocabulary


class Crossings(NamedTuple):
    """How often boundaries between tokens of one tokenizer fall inside tokens of another, along the same text.

    Attributes:
        boundaries: boundaries between two tokens of the first tokenizer.
        crossing: those of them inside a token of the second tokenizer.

    Example:
        >>> Crossings(4, 1).share
        0.25
    """

    boundaries: int
    crossing: int

    @property
    def share(self) -> float:
        """Share of the boundaries that cross, 0 without boundaries."""
        return self.crossing / self.boundaries if self.boundaries else 0.0


def token_ends(tokenizer: Any, ids: Sequence[int], text: str) -> list[int] | None:
    """Return the byte of the text behind each token, or None where the bytes of the tokens are not the text.

    Args:
        tokenizer: a fast tokenizer.
        ids: the tokens of the text, without special tokens around it.
        text: the text. A space that the tokenizer puts before it is no part of it; a token of that space alone ends
            at 0.

    Example:
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> token_ends(foreign_tokenizer(), foreign_tokenizer()("the a")["input_ids"], "the a")
        [3, 5]
    """
    vocabulary = Vocabulary.of(tokenizer)
    if vocabulary.join(ids) != vocabulary.prefix + text.encode():
        return None
    ends, place = [], -len(vocabulary.prefix)
    for token in ids:
        place += len(vocabulary.token_bytes[token] or b"")
        ends.append(place)
    return ends


def crossings(first: Sequence[int], second: Sequence[int]) -> Crossings:
    """Return how many boundaries of one tokenizer fall inside tokens of another.

    Args:
        first: byte behind each token of the first tokenizer; see `token_ends`.
        second: the same of the second tokenizer, for the same text.

    Example:
        >>> crossings([1, 2, 5, 6], [2, 3, 6])  # boundaries 1, 2, 5 and 2, 3
        Crossings(boundaries=3, crossing=2)
    """
    end = max(first, default=0)
    inner = {place for place in first if 0 < place < end}
    return Crossings(len(inner), len(inner - set(second)))
