"""Counting n-grams of token ids with sorted arrays: no dictionary, no loop over tokens.

The n-grams of all orders form a tree. An n-gram of order m is an *entry* of level m, and at the same time
the *context* of the (m + 1)-grams that begin with it, so a context is a number and never a tuple:

    keys[e] = parent * base + token     sorted; parent is the entry of level m - 1 that e extends
    starts[c] : starts[c + 1]           the entries of level m whose context is c (compressed sparse rows)

At level 1 the parent is a *group*: 0 in a table of one corpus; tables of several corpora side by side have
one group each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BREAK = -1  # in a stream of ids: the end of a document, or a token that no n-gram may hold
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Level:
    """All n-grams of one order.

    Attributes:
        keys: ``parent * base + token`` of every n-gram, sorted, ``[entries]`` int64.
        counts: how often each occurs, ``[entries]`` int64.
        starts: where each context's entries begin, ``[contexts + 1]`` int64.
    """

    keys: Any
    counts: Any
    starts: Any

    def __len__(self) -> int:
        return len(self.keys)


def stream(documents: Sequence[Any], *, base: int, banned: Ids | None = None) -> Ids:
    """Join documents to one stream of ids with breaks between them and in place of banned tokens.

    Args:
        documents: sequences of token ids.
        base: ids at or above this, and below zero, break.
        banned: further ids that break, such as special tokens.

    Returns:
        ids, ``[tokens + documents]`` int64, `BREAK` where no n-gram may cross.
    """
    pieces = [np.append(np.asarray(document, dtype=np.int64), BREAK) for document in documents]
    ids = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    if banned is not None and len(banned):
        allowed = np.ones(base, dtype=bool)
        allowed[banned[(banned >= 0) & (banned < base)]] = False
        inside = (ids >= 0) & (ids < base)
        return np.where(inside & allowed[np.where(inside, ids, 0)], ids, BREAK)
    return np.where((ids >= 0) & (ids < base), ids, BREAK)


def count(ids: Ids, *, orders: int, base: int) -> list[Level]:
    """Count the n-grams of a stream, orders 1 to ``orders``.

    As long as an n-gram packs into 63 bits it is sorted as one number; beyond that its first tokens are
    replaced by the number of their entry.

    Args:
        ids: from `stream`.
        orders: the longest n-gram.
        base: number of different ids.
    """
    bits = max(int(base - 1).bit_length(), 1)
    sound = ids >= 0
    packed, whole = ids, sound  # of the windows that start at each place: their number, and whether unbroken
    levels: list[Level] = []
    unique: Ids = np.zeros(1, dtype=np.int64)
    for order in range(1, orders + 1):
        if order > 1:
            tail, fine = ids[order - 1 :], sound[order - 1 :]
            head, kept = packed[: len(tail)], whole[: len(tail)] & fine
            if order * bits <= 63:
                packed, whole = (head << bits) | tail, kept
            else:
                if (order - 1) * bits <= 63:  # the last order that was packed
                    head = np.searchsorted(unique, np.where(kept, head, 0))
                else:
                    head = np.searchsorted(levels[-1].keys, np.where(kept, head, 0))
                packed, whole = head * base + tail, kept
        found, counts = _runs(np.sort(packed[whole]))
        if order * bits <= 63:
            parents = np.searchsorted(unique, found >> bits) if order > 1 else np.zeros_like(found)
            keys = parents * base + (found & ((1 << bits) - 1))
            unique = found
        else:
            keys = found
        levels.append(Level(keys, counts, row_starts(keys, base, len(levels[-1]) if levels else 1)))
    return levels


def _runs(sorted_values: Ids) -> tuple[Ids, Ids]:
    """The different values of a sorted array, and how often each stands there."""
    if not len(sorted_values):
        return sorted_values, sorted_values
    first = np.flatnonzero(np.append(True, sorted_values[1:] != sorted_values[:-1]))
    return sorted_values[first], np.diff(np.append(first, len(sorted_values)))


def row_starts(keys: Ids, base: int, contexts: int) -> Ids:
    """Where the entries of each of so many contexts begin, ``[contexts + 1]``."""
    return np.searchsorted(keys, np.arange(contexts + 1, dtype=np.int64) * base).astype(np.int64)


def merge(tables: Sequence[Sequence[Level]], *, base: int, groups: int = 1) -> list[Level]:
    """Add up tables of the same orders: the table of all their documents together."""
    merged: list[Level] = []
    moved = [np.arange(groups, dtype=np.int64) for _ in tables]  # old context -> new context
    for levels in zip(*tables, strict=True):
        keys = [to[level.keys // base] * base + level.keys % base for to, level in zip(moved, levels, strict=True)]
        together = np.concatenate(keys)
        order = np.argsort(together, kind="stable")  # a merge of sorted runs
        unique, lengths = _runs(together[order])
        counts = np.concatenate([level.counts for level in levels])[order]
        begins = np.cumsum(lengths) - lengths
        totals = np.add.reduceat(counts, begins) if len(unique) else counts
        contexts = len(merged[-1]) if merged else groups
        merged.append(Level(unique, totals, row_starts(unique, base, contexts)))
        moved = [np.searchsorted(unique, own) for own in keys]
    return merged


def side_by_side(tables: Sequence[Sequence[Level]], *, base: int) -> list[Level]:
    """Put tables of one group each into one table, each under its own group."""
    shifted = [
        [
            Level(first.keys + group * base, first.counts, row_starts(first.keys + group * base, base, len(tables))),
            *rest,
        ]
        for group, (first, *rest) in enumerate(tables)
    ]
    return merge(shifted, base=base, groups=len(tables))
