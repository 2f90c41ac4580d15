"""Exact next-byte laws: against enumeration of all covers on random tokenizers, and on a real model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.bytetree import ByteTree
from reference.byte_covers import Enumeration, random_model, random_tokenizer

LETTERS = b"ab "
TEXTS = st.text("ab ", min_size=0, max_size=6).map(str.encode)


def close(got: float, want: float, atol: float = 1e-5) -> bool:
    """Equal within 1e-5 nats, or both -inf."""
    return got == want or abs(got - want) <= atol


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), text=TEXTS, split=st.booleans())
def test_equals_enumeration(seed: int, text: bytes, split: bool) -> None:
    """P(text), each next byte and the end, over all canonical covers."""
    tokenizer = random_tokenizer(seed, split=split)
    model = random_model(tokenizer, seed)
    slow, tree = Enumeration(model, tokenizer), ByteTree(model, tokenizer)
    assert close(tree.logp(text), slow.logp(text))
    law = tree.law(text)
    for letter, want in slow.law(text, LETTERS).items():
        assert close(float(law.logp[letter]), want), letter
    assert float(law.logp.exp().sum()) + law.leak == pytest.approx(1, abs=1e-5)
