"""Texts as keys, and texts that grow by one byte."""

from __future__ import annotations

from typing import NamedTuple

from logitkit.processors.byte_level.hypotheses import Hypothesis

TokenIds = tuple[int, ...]


class Key(NamedTuple):
    """A text and the tokens that precede it."""

    conditioning: TokenIds
    text: bytes

    def beginning(self, end: int) -> Key:
        """Return the key of the first ``end`` bytes of the text; a negative ``end`` counts from the end."""
        return Key(self.conditioning, self.text[:end])


class Extension(NamedTuple):
    """A text that grows by one byte, and its hypotheses before the model reads the new ones."""

    key: Key
    text: bytes
    continued: list[Hypothesis]
    unread: list[Hypothesis]
    pruned: tuple[Hypothesis, ...]
    logp: float
