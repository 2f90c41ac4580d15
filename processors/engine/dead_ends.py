"""Rows for which a chain leaves no token, in a call whose search drops such rows in place of raising an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class DeadEnds:
    """The rows without a token that a call has met since they were last asked for.

    Attributes:
        dropping: whether the search that runs drops such rows; if not, a step that meets one raises an error.
        reason: why the last row that was met has no token, and the way out; empty: none was met.

    >>> dead_ends = DeadEnds()
    >>> with dead_ends.dropped():
    ...     dead_ends.add([2, 0], "choices: its rule forbids every token here")
    ...     dead_ends.dropping, dead_ends.taken()
    (True, [0, 2])
    >>> dead_ends.dropping, dead_ends.taken()
    (False, [])
    """

    def __init__(self) -> None:
        self.dropping, self.reason = False, ""
        self._rows: set[int] = set()

    def add(self, rows: Sequence[int], reason: str) -> None:
        """Note rows of the running step by number, and why they have no token."""
        self._rows.update(rows)
        self.reason = reason

    def taken(self) -> list[int]:
        """Return the numbers of the rows that were noted, in order, and forget them."""
        rows, self._rows = sorted(self._rows), set()
        return rows

    def without(self, scores: Tensor, before: Tensor, owner: str) -> Tensor:
        """Note the rows in which every token is masked; return the scores in which they are as they were before.

        Without `dropping`, return the scores themselves.

        Args:
            scores: after some processors, ``[rows, vocab]``.
            before: before these processors, ``[rows, vocab]``.
            owner: of the processors, for the reason.
        """
        dead = masked_rows(scores)
        if not self.dropping or not bool(dead.any()):
            return scores
        self.add(dead.nonzero()[:, 0].tolist(), f"{owner}: it removed every token; loosen it")
        return torch.where(dead[:, None], before, scores)

    @contextmanager
    def dropped(self, dropping: bool = True) -> Iterator[None]:
        """State that the search of this block drops rows without a token."""
        self.dropping, self.reason, self._rows = dropping, "", set()
        try:
            yield
        finally:
            self.dropping = False
            self._rows.clear()


def masked_rows(scores: Tensor) -> Tensor:
    """Return the rows in which every token is masked, with -inf or ``finfo.min``; not those with NaN, bool ``[rows]``.

    >>> masked_rows(torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf], [torch.nan, 0.0]]))
    tensor([False,  True, False])
    """
    return scores.amax(-1) < torch.finfo(scores.dtype).min / 4
