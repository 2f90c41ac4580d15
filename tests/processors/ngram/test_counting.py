"""Counting: counts equal those of dictionaries, and counts of documents can be merged."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.ngram import NgramTable, counting
from reference.ngrams import counted, counts_of, every_context

DOCUMENTS = [[1, 2, 1, 2, 3], [2, 1]]
CORPORA = st.lists(st.lists(st.integers(0, 4), max_size=14), min_size=1, max_size=4).filter(any)


def test_counts_by_hand() -> None:
    """Counts equal those made by hand; no pair crosses from 3 to 2, where a document ends."""
    assert counts_of(NgramTable.count(DOCUMENTS, size=5, orders=2)) == [
        {(1,): 3, (2,): 3, (3,): 1},
        {(1, 2): 2, (2, 1): 2, (2, 3): 1},
    ]


@given(CORPORA, st.integers(1, 5), st.sampled_from([5, 60_000, 300_000]), st.sets(st.integers(0, 4), max_size=2))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_dictionaries(corpus: Any, orders: int, size: int, special: set[int]) -> None:
    """Counts equal dictionary counts, for n-grams that fit into packed numbers and for longer ones."""
    documents = [[size - 1 - token for token in document] for document in corpus]
    excluded = frozenset(size - 1 - token for token in special)
    if all(token in excluded for document in documents for token in document):
        return
    table = NgramTable.count(documents, size=size, orders=orders, special=sorted(excluded))
    assert counts_of(table) == counted(documents, orders, excluded)
    for level in table.levels:
        assert (level.keys.diff() > 0).all() and int(level.starts[-1]) == len(level)


@given(CORPORA, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_tables_add_up(corpus: Any, orders: int) -> None:
    """Merged counts of documents equal the counts of all; documents in groups keep the counts of each."""
    parts = [counting.count(counting.join_documents([document], base=5), orders=orders, base=5) for document in corpus]
    merged = NgramTable(counting.merge(parts, base=5), size=5)
    assert counts_of(merged) == counted(corpus, orders)
    beside = NgramTable(counting.merge_as_groups(parts, base=5), size=5)
    rows = every_context(beside.orders, 5)
    for group, part in enumerate(parts):
        alone = NgramTable(part, size=5)
        of_group = beside.contexts(rows, torch.full((len(rows),), group))
        got = beside.followers(orders, of_group[:, -1])
        want = alone.followers(orders, alone.contexts(rows)[:, -1])
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
        assert torch.equal(beside.levels[-1].counts[got[2]], alone.levels[-1].counts[want[2]])
