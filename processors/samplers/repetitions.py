"""Repetitions of the end of a row earlier in the row, kept up to date as rows grow.

For each place of a row, the length of the longest text that ends there and at the end of the row too. One more token
changes all lengths by one comparison: a length grows by one where the next token is the new one, else it is 0. Rows
that did not grow from known rows are read anew. The results depend on the tokens of the rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.processors.samplers.breakers import BreakerTable
from logitkit.processors.samplers.row_tokens import RowTokens

__all__ = ["Repetitions", "RowEnds", "common_suffixes"]

OLD, NEW = -1, -2  # stand for tokens that are no text: what is written into a row equals nothing that comes later
KEPT = 16  # row lengths whose results are kept, for the rewinds of assisted decoding


@dataclass(frozen=True, eq=False)
class RowEnds:
    """What is known about the ends of some rows.

    Attributes:
        ids: token ids, ``[rows, length]``.
        text: the same, with a negative number for tokens that are no text of the row, int32 ``[rows, length]``.
        lengths: of the longest text that ends at a place and at the end of the row, for all places but the last,
            int32 ``[rows, length - 1]``.
        weight: 0 for tokens that contain a breaker, are no text of the row, or no token of the vocabulary; 1 for the
            others; fp32 ``[rows, length]``.
        state: of the breakers' automaton at the end of each row, ``[rows]``.
        last_breaker: place of the last token in which a breaker ends, or -1, ``[rows]``.
        version: of ``ids``, which torch raises at each write; 0 for a copy in inference mode.
    """

    ids: Tensor
    text: Tensor
    lengths: Tensor
    weight: Tensor
    state: Tensor
    last_breaker: Tensor
    version: int

    @property
    def valid(self) -> bool:
        """Whether the caller has not written to the token ids since."""
        return _version(self.ids) == self.version

    def __getitem__(self, rows: Tensor) -> RowEnds:
        """Return chosen rows in a chosen order."""
        ids = self.ids[rows]
        return RowEnds(
            ids=ids,
            text=self.text[rows],
            lengths=self.lengths[rows],
            weight=self.weight[rows],
            state=self.state[rows],
            last_breaker=self.last_breaker[rows],
            version=_version(ids),
        )


class Repetitions:
    r"""The ends of rows, as a cache by content.

    Args:
        table: the breakers.
        rows: which tokens are text of the row; no text reaches over other tokens. None: all. Its prompts are those of
            the call; without prompts, rows are compared at once.

    Attributes:
        checks: where comparisons on the device are read.

    Example:
        >>> ends = Repetitions(BreakerTable.of([b"a", b"b", b"\n"], ["\n"]))
        >>> rows = torch.tensor([[0, 1, 2, 0, 1]])
        >>> found = ends(rows)
        >>> found.lengths.tolist(), found.last_breaker.tolist()
        ([[0, 2, 0, 0]], [2])
    """

    def __init__(self, table: BreakerTable, rows: RowTokens | None = None) -> None:
        self.table, self._placed, self.rows = table, table, rows or RowTokens()
        self._prompts = self.rows.prompts
        self.checks = DeferredChecks() if self._prompts is None else self._prompts.deferred_checks
        self._kept: list[RowEnds] = []  # the newest last
        self._defers = True

    def __call__(self, ids: Tensor) -> RowEnds:
        """Return the ends of rows.

        Args:
            ids: ``[rows, length]``, of at least one token.
        """
        ids = ids.clone() if ids.is_inference() else ids  # torch does not count writes to inference tensors
        self._kept = [kept for kept in self._kept if kept.valid]
        known = self._grown(ids) or self._matched(ids)
        found = self._read(ids) if known is None else known
        while found.ids.shape[1] < ids.shape[1]:
            length = found.ids.shape[1] + 1
            found = self._extended(found, ids if length == ids.shape[1] else ids[:, :length])
        others = [kept for kept in self._kept if kept.ids.shape[1] != ids.shape[1]]
        self._kept = [*others[1 - KEPT :], found]
        return found

    def _grown(self, ids: Tensor) -> RowEnds | None:
        """Return the newest ends if these are their rows with one more token each; the comparison may be deferred."""
        if not self._kept or self._prompts is None or not self._defers:
            return None
        newest, before = self._kept[-1], list(self._kept)
        grew = self._prompts.grew_by_one(newest.ids, ids)
        if grew is None:
            return None

        def undo() -> None:
            self._kept, self._defers = before, False

        return newest if self.checks.check(grew, undo) else None

    def _matched(self, ids: Tensor) -> RowEnds | None:
        """Return the longest kept rows with which these rows begin, in the order of these rows."""
        shorter = [kept for kept in self._kept if kept.ids.shape[1] <= ids.shape[1]]
        for kept in sorted(shorter, key=lambda ends: -ends.ids.shape[1]):
            start = ids[:, : kept.ids.shape[1]]
            if start.shape == kept.ids.shape and torch.equal(start, kept.ids):
                return kept
            same = torch.stack([(start == row).all(-1) for row in kept.ids], dim=1)  # [rows, kept rows]
            if bool(same.any(-1).all()):
                return kept[same.int().argmax(-1)]
        return None

    def _table_on(self, device: torch.device) -> BreakerTable:
        """Return the table on the device of the rows, to which it is copied once."""
        if self._placed.ends.device != device:
            self._placed = self.table.to(device)
        return self._placed

    def _extended(self, known: RowEnds, ids: Tensor) -> RowEnds:
        """Return the ends of rows of one more token."""
        table, place = self._table_on(ids.device), ids.shape[1] - 1
        token = self.rows.newest(ids, otherwise=NEW)
        column, token = table.column(token[:, 0]), token.int()
        lengths = torch.nn.functional.pad(known.lengths, (1, 0))  # of the place before each place
        state, ended = known.state, table.ends[known.state, column]
        if len(table.following) > 1:
            state = table.following[state, column]
        return RowEnds(
            ids=ids,
            text=torch.cat([known.text, token], dim=1),
            lengths=lengths.add_(1).mul_(known.text == token),
            weight=torch.cat([known.weight, table.weight[column][:, None]], dim=1),
            state=state,
            last_breaker=known.last_breaker.masked_fill(ended, place),
            version=_version(ids),
        )

    def _read(self, ids: Tensor) -> RowEnds:
        """Return the ends of rows without anything known, read on the host."""
        text, table = ids.masked_fill(~self.rows(ids), OLD), self._table_on(ids.device)
        rows = text.tolist()
        lengths = torch.tensor([common_suffixes(row) for row in rows], dtype=torch.int32, device=ids.device)
        scanned = torch.tensor([self.table.scan(row) for row in rows], dtype=torch.long, device=ids.device)
        return RowEnds(
            ids=ids,
            text=text.int(),
            lengths=lengths.view(len(rows), ids.shape[1] - 1),
            weight=table.weight[table.column(text)],
            state=scanned[:, 0],
            last_breaker=scanned[:, 1],
            version=_version(ids),
        )


def _version(ids: Tensor) -> int:
    """Return the number of writes to a tensor; 0 for inference tensors, whose writes are not counted."""
    return 0 if ids.is_inference() else ids._version


def common_suffixes(row: Sequence[int]) -> list[int]:
    """Return, for each place of a row but the last, the length of the text that ends there and at the end of the row.

    The time is linear in the length of the row, whatever repeats: every length that lies inside a repetition found
    before is copied from it (Z-algorithm, from the end of the row; D. Gusfield, 1997).

    Args:
        row: token ids; a negative one equals nothing, itself neither.

    Example:
        >>> common_suffixes([5, 6, 7, 5, 6])
        [0, 2, 0, 0]
        >>> common_suffixes([5, 5, 5, 5])
        [1, 2, 3]
    """
    reverse, size = row[::-1], len(row)
    limit = next((place for place, token in enumerate(reverse) if token < 0), size)  # no text reaches over it
    lengths = [0] * size
    begin = end = 0  # the repetition that reaches furthest: reverse[begin:end] == reverse[:end - begin]
    last = reverse[0] if row else -1
    for place in range(1, size):
        length = min(lengths[place - begin], end - place) if place < end else 0
        if place + length >= end and (length or reverse[place] == last):
            while length < limit and place + length < size and reverse[place + length] == reverse[length]:
                length += 1
            begin, end = place, place + length
        lengths[place] = length
    return lengths[:0:-1]
