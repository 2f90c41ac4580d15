"""Alignment by embeddings."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from alignments import sides, token

from logitkit.errors import ModelError
from logitkit.processors.alignment import AlignmentVocabulary, Match, align, embedding, largest_products
from logitkit.processors.alignment.embedding import LEAST, NEIGHBOURS


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


def by_whole_products(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> tuple[torch.Tensor, torch.Tensor]:
    """The slow way: every cosine in float64, one helper token after the other."""
    base = align("exact", helper, main)
    shared = ((base.matches == Match.EXACT) & (torch.arange(helper.size) != helper.end)).nonzero()[:, 0]
    tables = [side.embeddings for side in (helper, main)]
    assert tables[0] is not None and tables[1] is not None
    rows, columns = embedding._common_space(tables[0], tables[1], shared, base.targets[shared, 0])
    rows, columns, candidates = rows.double(), columns.double(), torch.tensor(main.text_tokens())
    hubness = (columns[candidates] @ rows[shared].T).topk(NEIGHBOURS).values.mean(-1)
    targets, weights = base.targets.repeat(1, NEIGHBOURS), torch.zeros(helper.size, NEIGHBOURS, dtype=torch.float64)
    weights[:, 0] = base.weights[:, 0]
    for token_id in (base.matches == Match.NONE).nonzero()[:, 0].tolist():
        best = (2 * columns[candidates] @ rows[token_id] - hubness).topk(NEIGHBOURS)
        kept = best.values.where(best.values >= LEAST, 0)
        kept[0] = kept[0].clamp_min(LEAST)
        targets[token_id], weights[token_id] = candidates[best.indices], kept / kept.sum()
    return targets, weights


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_equal_to_whole_products(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates by products of low precision give the alignment of whole products in float64."""
    for name, value in (("WIDTH", 4), ("LEVELS", (10, 24)), ("LEAST", 1), ("CELLS", 2**12), ("ROWS", 1)):
        monkeypatch.setattr(largest_products, name, value)
    monkeypatch.setattr(largest_products, "faster_dtype", lambda columns: dtype)
    draw = torch.Generator().manual_seed(0)
    helper, main = (
        dataclasses.replace(side, embeddings=torch.randn(side.size, width, generator=draw))
        for side, width in zip(sides(), (16, 24), strict=True)
    )
    alignment = align("embedding", helper, main)
    targets, weights = by_whole_products(helper, main)
    torch.testing.assert_close(alignment.weights.double(), weights, rtol=0, atol=1e-5)
    counted = weights > 1e-4
    assert counted.sum() > 270 and torch.equal(alignment.targets[counted], targets[counted])
