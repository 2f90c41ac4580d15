"""Mixture of the orders of a table, as dense rows of probabilities."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.ngram import SMOOTHING_NAMES, NgramTable
from logitkit.processors.ngram.mixture import mixture_of_orders
from reference.ngrams import every_context

CORPORA = st.lists(st.lists(st.integers(0, 4), max_size=14), min_size=1, max_size=4).filter(any)


@given(CORPORA, st.integers(1, 4), st.sampled_from(SMOOTHING_NAMES))
@settings(max_examples=30, deadline=None)
def test_one_order_is_its_smoothed_model(corpus: Any, orders: int, name: str) -> None:
    """With all weight on the longest order, the mixture equals the smoothed model of that order."""
    table = NgramTable.count(corpus, size=6, orders=orders, smoothing=name)
    rows = every_context(orders, 6)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))][:20]
    contexts = table.contexts(rows)
    seen = contexts[:, -1] >= 0
    weights = [0.0] * (orders - 1) + [1.0]
    got = mixture_of_orders(table, contexts, weights, 8)[seen]
    want = torch.stack([table.probability(rows[seen], torch.full((int(seen.sum()),), t)) for t in range(6)], 1)
    torch.testing.assert_close(got[:, :6].double(), want, rtol=1e-5, atol=1e-7)
