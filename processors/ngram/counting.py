"""Counting n-grams of token ids with sorted arrays, without dictionaries and without a Python loop over tokens.

The n-grams of all orders form a tree. An n-gram of order m is an *entry* of level m. The same entry is the *context*
of the (m + 1)-grams that begin with that n-gram, so that a context is one number rather than a tuple of tokens:

    keys[e] = parent * base + token     sorted; ``parent`` is the entry of level m - 1 that entry e extends
    starts[c] : starts[c + 1]           the entries of level m whose context is c (compressed sparse rows)

At level 1 the parent is a *group*. A table of one corpus has the group 0 only. A table of several corpora has one
group for each corpus, and n-grams of different groups are separate entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BREAK = -1  # separates documents, and replaces tokens that no n-gram may contain
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Level:
    """All n-grams of one order.

    Attributes:
        keys: ``parent * base + token`` of every n-gram, sorted, ``[entries]`` int64.
        counts: number of occurrences of every n-gram, ``[entries]`` int64; None in a model without counts.
        starts: index of the first entry of each context, and the number of entries, ``[contexts + 1]`` int64.
    """

    keys: Any
    counts: Any
    starts: Any

    def __len__(self) -> int:
        return len(self.keys)


def join_documents(documents: Sequence[Any], *, base: int, excluded: Ids | None = None) -> Ids:
    """Join documents into one array of ids with breaks between documents and in place of excluded tokens.

    Args:
        documents: sequences of token ids.
        base: number of different ids; ids outside ``0 .. base - 1`` become breaks.
        excluded: further ids that become breaks, such as special tokens.

    Returns:
        ids, ``[tokens + documents]`` int64, with `BREAK` where no n-gram may cross.

    Example:
        >>> join_documents([[1, 2], [3, 9]], base=5).tolist()
        [1, 2, -1, 3, -1, -1]
    """
    pieces = [np.append(np.asarray(document, dtype=np.int64), BREAK) for document in documents]
    ids = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    if excluded is not None and len(excluded):
        allowed = np.ones(base, dtype=bool)
        allowed[excluded[(excluded >= 0) & (excluded < base)]] = False
        in_range = (ids >= 0) & (ids < base)
        return np.where(in_range & allowed[np.where(in_range, ids, 0)], ids, BREAK)
    return np.where((ids >= 0) & (ids < base), ids, BREAK)


def count(ids: Ids, *, orders: int, base: int) -> list[Level]:
    """Count the n-grams of orders 1 to ``orders``.

    An n-gram that fits into 63 bits is sorted as one packed number. In a longer n-gram the entry of its beginning
    replaces all tokens but the last.

    Args:
        ids: result of `join_documents`.
        orders: the longest n-gram.
        base: number of different ids.

    Example:
        >>> [level.counts.tolist() for level in count(join_documents([[1, 2, 1, 2]], base=3), orders=2, base=3)]
        [[2, 2], [2, 1]]
    """
    bits = max(int(base - 1).bit_length(), 1)
    unbroken = ids >= 0
    # Of the window that starts at each position: its packed number, and whether it contains no break.
    packed, valid = ids, unbroken
    levels: list[Level] = []
    unique: Ids = np.zeros(1, dtype=np.int64)
    for order in range(1, orders + 1):
        if order > 1:
            last = ids[order - 1 :]
            beginning, valid = packed[: len(last)], valid[: len(last)] & unbroken[order - 1 :]
            if order * bits <= 63:
                packed = (beginning << bits) | last
            else:
                shorter = unique if (order - 1) * bits <= 63 else levels[-1].keys  # packed numbers, or keys
                packed = np.searchsorted(shorter, np.where(valid, beginning, 0)) * base + last
        values, counts = _count_sorted(np.sort(packed[valid]))
        if order * bits <= 63:
            parents = np.searchsorted(unique, values >> bits) if order > 1 else np.zeros_like(values)
            keys = parents * base + (values & ((1 << bits) - 1))
            unique = values
        else:
            keys = values
        levels.append(Level(keys, counts, context_starts(keys, base, len(levels[-1]) if levels else 1)))
    return levels


def _count_sorted(sorted_values: Ids) -> tuple[Ids, Ids]:
    """Return the different values of a sorted array and the number of occurrences of each."""
    if not len(sorted_values):
        return sorted_values, sorted_values
    first = np.flatnonzero(np.append(True, sorted_values[1:] != sorted_values[:-1]))
    return sorted_values[first], np.diff(np.append(first, len(sorted_values)))


def context_starts(keys: Ids, base: int, contexts: int) -> Ids:
    """Return the index of the first entry of each context, and the number of entries, ``[contexts + 1]``."""
    return np.searchsorted(keys, np.arange(contexts + 1, dtype=np.int64) * base).astype(np.int64)


def merge(tables: Sequence[Sequence[Level]], *, base: int, groups: int = 1) -> list[Level]:
    """Add the counts of tables of the same orders.

    Args:
        tables: the levels of each table.
        base: number of different ids.
        groups: number of groups at level 1.

    Returns:
        the levels of the table of all their documents.
    """
    merged: list[Level] = []
    new_contexts = [np.arange(groups, dtype=np.int64) for _ in tables]  # index: context in the old table
    for levels in zip(*tables, strict=True):
        keys = [
            new[level.keys // base] * base + level.keys % base for new, level in zip(new_contexts, levels, strict=True)
        ]
        all_keys = np.concatenate(keys)
        order = np.argsort(all_keys, kind="stable")  # fast, because the arrays are sorted runs
        unique, lengths = _count_sorted(all_keys[order])
        counts = np.concatenate([level.counts for level in levels])[order]
        totals = np.add.reduceat(counts, np.cumsum(lengths) - lengths) if len(unique) else counts
        contexts = len(merged[-1]) if merged else groups
        merged.append(Level(unique, totals, context_starts(unique, base, contexts)))
        new_contexts = [np.searchsorted(unique, old) for old in keys]
    return merged


def merge_as_groups(tables: Sequence[Sequence[Level]], *, base: int) -> list[Level]:
    """Combine tables of one group each into one table in which every table has a group of its own."""
    shifted = []
    for group, (first, *longer) in enumerate(tables):
        keys = first.keys + group * base
        shifted.append([Level(keys, first.counts, context_starts(keys, base, len(tables))), *longer])
    return merge(shifted, base=base, groups=len(tables))
