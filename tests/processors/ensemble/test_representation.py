"""Relative representations of tokens, and the anchors."""

from __future__ import annotations

import math

import torch

from foreign import foreign_model, foreign_tokenizer
from logitkit.processors.ensemble import AlignmentVocabulary, Representation, shared_tokens
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_a_representation_by_hand() -> None:
    """By hand, with anchors along two axes: a token at 45 degrees has half of each, a token on an axis that anchor."""
    table = torch.tensor([[1.0, 0.0], [0.0, 3.0], [5.0, 5.0], [-2.0, 0.0]])
    got = Representation(table, torch.tensor([0, 1]))(torch.tensor([[0, 2, 3]]))
    want = torch.tensor([[[1.0, math.exp(-100)], [0.5, 0.5], [math.exp(-100), 1.0]]])
    torch.testing.assert_close(got, want)


def test_shared_tokens_are_the_same_bytes_in_every_vocabulary() -> None:
    """Shared tokens have the same bytes in each vocabulary, and come in the order of the main ids."""
    main, far = (
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
        AlignmentVocabulary.of(foreign_model(), foreign_tokenizer()),
    )
    ours, (theirs,) = shared_tokens(main, [far], 20)
    assert ours.tolist() == list(range(20))
    assert [main.vocabulary.token_bytes[i] for i in ours] == [far.vocabulary.token_bytes[i] for i in theirs]
