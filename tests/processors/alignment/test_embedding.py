"""Alignment by embeddings."""

from __future__ import annotations

import pytest
import torch
from alignments import sides, token

from logitkit.errors import ModelError
from logitkit.processors.alignment import AlignmentVocabulary, align


def test_rotated_embeddings_are_aligned() -> None:
    """If the helper's embeddings are a rotation of the main model's, tokens with equal vectors are aligned."""
    torch.manual_seed(0)
    helper, main = sides()
    table, turn = torch.randn(272, 16), torch.linalg.qr(torch.randn(16, 16))[0]
    theirs = torch.randn(320, 16)
    for text, ids in main.vocabulary.ids_of.items():
        theirs[token(helper, text)] = table[ids[0]] @ turn
    the, like = token(helper, b"the"), token(main, b"q")
    theirs[the] = table[like] @ turn
    alignment = align(
        "embedding",
        AlignmentVocabulary(
            tokenizer=helper.tokenizer, vocabulary=helper.vocabulary, end_tokens=helper.end_tokens, embeddings=theirs
        ),
        AlignmentVocabulary(
            tokenizer=main.tokenizer, vocabulary=main.vocabulary, end_tokens=main.end_tokens, embeddings=table
        ),
    )
    assert alignment.targets[the, 0] == like and alignment.weights[the, 0] == alignment.weights[the].max()
    torch.testing.assert_close(alignment.weights.sum(-1)[2:271], torch.ones(269))


def test_models_without_embeddings_are_refused() -> None:
    """The method needs the input embeddings of both models."""
    helper, main = sides()
    bare = AlignmentVocabulary(tokenizer=main.tokenizer, vocabulary=main.vocabulary, end_tokens=main.end_tokens)
    for pair in ((helper, bare), (bare, helper)):
        with pytest.raises(ModelError, match="both models must have input embeddings for 'embedding'"):
            align("embedding", *pair)
