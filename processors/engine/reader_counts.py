"""Counts of the forward passes of a reader."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Counts(Protocol):
    """Counts forward passes, as readers do."""

    @property
    def forwards(self) -> int:
        """Forward passes so far."""

    @property
    def tokens(self) -> int:
        """Tokens fed so far, summed over rows."""


class ReaderCounts(NamedTuple):
    """The counts of a reader, without the reader.

    Attributes:
        forwards: forward passes.
        tokens: tokens fed, summed over rows.
    """

    forwards: int
    tokens: int
