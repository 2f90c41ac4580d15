"""Contrastive search against a reading of every candidate from the beginning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ModeError, ParameterError
from logitkit.processors.searches import BoundSearch, ContrastiveSearch
from logitkit.processors.searches.contrastive_search import contrastive_scores
from logitkit.registry.laws import tiny_model
from logitkit.registry.laws.tiny_models import encoder_decoder_model

PAD = 258


def test_by_hand() -> None:
    """Half of 0.5 less half the cosine 0.8; a candidate like an earlier token loses 0.5; padding does not count."""
    p = torch.tensor([[0.5, 0.3, 0.0]])
    candidates = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [1.0, 1.0]]])
    states, read = torch.tensor([[[0.0, 2.0], [-1.0, 0.0]]]), torch.tensor([[True, True]])
    got = contrastive_scores(p, candidates, states, read, alpha=0.5)
    torch.testing.assert_close(got, torch.tensor([[0.25 - 0.4, 0.15 - 0.5, -torch.inf]]))
    got = contrastive_scores(p, candidates, states, torch.tensor([[False, True]]), alpha=0.5)
    torch.testing.assert_close(got, torch.tensor([[0.25 + 0.3, 0.15 + 0.0, -torch.inf]]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 1), st.floats(0.1, 9.0))
def test_lengths_of_states_do_not_count(seed: int, alpha: float, factor: float) -> None:
    """Only directions do; the value lies between -alpha and 1."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(2, 3, generator=generator).softmax(-1)
    candidates, states = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 5, 4, generator=generator)
    read = torch.ones(2, 5, dtype=torch.bool)
    got = contrastive_scores(p, candidates, states, read, alpha=alpha)
    torch.testing.assert_close(got, contrastive_scores(p, factor * candidates, states, read, alpha=alpha))
    assert bool((got >= -alpha - 1e-5).all()) and bool((got <= 1 + 1e-5).all())


def reference(row: list[int], tokens: int, alpha: float, top: int, ends: list[int]) -> list[int]:
    """The row after contrastive search, without a cache: every candidate in a forward over its whole text."""
    model = tiny_model()

    def states(ids: list[int]) -> Any:
        with torch.no_grad():
            output = model(torch.tensor([ids]), output_hidden_states=True)
        return output.hidden_states[-1][0], output.logits[0, -1].softmax(-1)

    for _ in range(tokens):
        earlier, p = states(row)
        best: tuple[float, int] = (-9.0, -1)
        for token in p.topk(top).indices.tolist():
            own = states([*row, token])[0][-1]
            likeness = torch.nn.functional.cosine_similarity(own[None], earlier).max()
            best = max(best, (float((1 - alpha) * p[token] - alpha * likeness), token))
        row = [*row, best[1]]
        if best[1] in ends:
            break
    return row


@pytest.mark.parametrize(("alpha", "top"), [(0.6, 4), (0.9, 3), (0.0, 5), (0.5, 1)])
def test_tokens_are_those_of_the_reference(alpha: float, top: int) -> None:
    """In a batch with padding, where rows end at different places."""
    ids = torch.randint(0, 256, (3, 7), generator=torch.Generator().manual_seed(top))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    ends = list(range(0, 256, 12))
    search = BoundSearch(ContrastiveSearch(alpha=alpha, top=top))
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": ends, "pad_token_id": PAD}
    got = tiny_model().generate(ids, attention_mask=mask, custom_generate=search, **options)
    for number in range(3):
        want = reference(ids[number][mask[number].bool()].tolist(), 6, alpha, top, ends)
        new = want[int(mask[number].sum()) :]
        tail = got[number, 7:].tolist()
        assert tail[: len(new)] == new and set(tail[len(new) :]) <= {PAD}
    if alpha == 0.0 or top == 1:
        assert torch.equal(got, tiny_model().generate(ids, attention_mask=mask, **options))


def test_refused() -> None:
    ids = torch.tensor([[1, 2]])
    with pytest.raises(ModeError, match="contrastive_search: model must be decoder-only"):
        encoder_decoder_model().generate(ids, custom_generate=ContrastiveSearch(), max_new_tokens=2)
    with pytest.raises(ModeError, match="at most 1"):
        tiny_model().generate(
            ids, custom_generate=ContrastiveSearch(), max_new_tokens=2, num_return_sequences=2, do_sample=True
        )
    with pytest.raises(ParameterError, match="alpha must be"):
        ContrastiveSearch(alpha=1.5)
