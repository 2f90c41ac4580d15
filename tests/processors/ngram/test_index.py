"""Look-up of contexts and followers for a batch."""

from __future__ import annotations

import torch

from logitkit.processors.ngram import NgramTable
from logitkit.processors.ngram.index import NO_CONTEXT, UNSEEN


def test_contexts_of_a_batch() -> None:
    """Each row finds its own context: seen, unseen, interrupted by a special token or by padding, or too short."""
    table = NgramTable.count([[1, 2, 3, 1, 2, 4]], size=8, orders=3, special=[7])
    rows = torch.tensor([[1, 2], [2, 1], [7, 2], [-1, 2], [2, 7], [100, 2]])
    got = table.contexts(rows)
    assert (got[:, 0] == 0).all()
    assert (got[[0, 2, 3, 5], 1] == got[0, 1]).all() and got[4, 1] == NO_CONTEXT
    assert got[0, 2] >= 0 and got[1, 2] == UNSEEN and (got[2:, 2] == NO_CONTEXT).all()
    assert table.contexts(torch.zeros(2, 0).long()).tolist() == [[0, NO_CONTEXT, NO_CONTEXT]] * 2
    number, tokens, entries = table.followers(3, got[:, 2])
    assert number.tolist() == [0, 0] and tokens.tolist() == [3, 4]
    assert table.levels[2].counts[entries].tolist() == [1, 1]
