"""Mixture of the orders of a table, as dense rows of probabilities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.ngram import SMOOTHING_NAMES, NgramTable
from logitkit.processors.ngram.mixture import mixture_of_orders
from reference.ngrams import every_context

CORPORA = st.lists(st.lists(st.integers(0, 4), max_size=14), min_size=1, max_size=4).filter(any)


@pytest.mark.parametrize("name", SMOOTHING_NAMES)
def test_a_context_at_the_end_of_a_document_does_not_occur(name: Any) -> None:
    """Token 4 is seen only at the end, so only single tokens count; add-k gave the uniform distribution a share."""
    table = NgramTable.count([[1, 2, 1, 2, 4], [2, 1]], size=8, orders=2, smoothing=name)
    contexts = table.contexts(torch.tensor([[4], [7]]))
    assert contexts[0, 1] >= 0 > contexts[1, 1]  # token 4 is an n-gram, token 7 is not
    got = mixture_of_orders(table, contexts, torch.tensor([0.25, 0.75]), 8)
    torch.testing.assert_close(got[0], mixture_of_orders(table, contexts, torch.tensor([1.0, 0.0]), 8)[0])
    torch.testing.assert_close(got[0], got[1])


@given(CORPORA, st.integers(1, 4), st.sampled_from(SMOOTHING_NAMES))
@settings(max_examples=30, deadline=None)
def test_one_order_is_its_smoothed_model(corpus: Any, orders: int, name: str) -> None:
    """With all weight on the longest order, the mixture equals the smoothed model of that order."""
    table = NgramTable.count(corpus, size=6, orders=orders, smoothing=name)
    rows = every_context(orders, 6)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))][:20]
    contexts = table.contexts(rows)
    starts, longest = table.levels[-1].starts, contexts[:, -1].clamp(min=0)
    seen = (contexts[:, -1] >= 0) & (starts.diff()[longest] > 0 if len(starts) > 1 else False)
    weights = [0.0] * (orders - 1) + [1.0]
    got = mixture_of_orders(table, contexts, torch.tensor(weights), 8)[seen]
    want = torch.stack([table.probability(rows[seen], torch.full((int(seen.sum()),), t)) for t in range(6)], 1)
    torch.testing.assert_close(got[:, :6].double(), want, rtol=1e-5, atol=1e-7)
