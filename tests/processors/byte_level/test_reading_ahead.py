"""A likely token is read ahead in a forward that is needed anyway; distributions do not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.byte_level import ByteTree, tree
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.byte_level.reading_ahead import likely_token
from logitkit.processors.engine.tree_node import Node
from reference.byte_covers import random_model, random_tokenizer


def along(model: Any, tokenizer: Any, text: bytes, tolerance: float) -> tuple[torch.Tensor, int]:
    """Return the distributions after each beginning of a text, byte by byte, and the number of forwards."""
    byte_tree = ByteTree(model, tokenizer, tolerance=tolerance)
    logp = [byte_tree.next_byte(text[:end]) for end in range(len(text) + 1)]
    return torch.stack(logp), byte_tree.forwards


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    text=st.text("ab ", min_size=1, max_size=12).map(str.encode),
    tolerance=st.sampled_from([0.0, 1e-3, 0.1]),
)
def test_distributions_do_not_change(seed: int, text: bytes, tolerance: float) -> None:
    """Reading ahead gives the distributions of reading without it, in no more forwards."""
    tokenizer = random_tokenizer(seed)
    model = random_model(tokenizer, seed).double()
    logp, forwards = along(model, tokenizer, text, tolerance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "MOST_NODES", 1)
        without, without_forwards = along(model, tokenizer, text, tolerance)
    torch.testing.assert_close(logp, without, atol=1e-6, rtol=0)
    assert forwards <= without_forwards


def test_a_likely_token_by_hand() -> None:
    """Behind "a" with probability 1, "ab" has 0.6 and "aa" 0.3: "ab" is read ahead; a rare hypothesis has none."""
    tokenizer = random_tokenizer(4, merges=10)
    byte_tree = ByteTree(random_model(tokenizer, 4), tokenizer)
    first = Hypothesis(context=(), start=0)
    ids = byte_tree.covers.tokens_beyond(first, b"a").tolist()
    probabilities = torch.full((len(byte_tree.vocabulary),), 1e-6)
    probabilities[ids[0]], probabilities[ids[-1]] = 0.6, 0.3
    node = Node(token=0, parent=None, depth=0, logp=probabilities.log().numpy())
    likely = likely_token([Hypothesis(context=(), start=0, node=node)], b"a", 0.0, byte_tree.covers)
    assert likely is not None and likely.token == ids[0] and likely.logp == pytest.approx(-0.5108, abs=1e-3)
    rare = Hypothesis(context=(), start=0, node=node, logp=-3.0)
    assert likely_token([rare], b"a", 0.0, byte_tree.covers) is None


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", min_size=6, max_size=10).map(str.encode))
def test_nothing_is_read_beyond_the_context(seed: int, text: bytes) -> None:
    """A text whose own tokens just fit into the context of the model is read, whatever is likely to follow."""
    tokenizer = random_tokenizer(seed)
    model = random_model(tokenizer, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "MOST_NODES", 1)
        without = ByteTree(model, tokenizer)
        for end in range(len(text) + 1):
            without.next_byte(text[:end])
    fitting = ByteTree(model, tokenizer)
    fitting.kv_tree._limit = 1 + max(node.depth for node in without.kv_tree._slots)
    for end in range(len(text) + 1):
        torch.testing.assert_close(fitting.next_byte(text[:end]), without.next_byte(text[:end]), atol=1e-5, rtol=0)
