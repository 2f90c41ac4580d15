"""Beams against the enumeration of all texts, and groups against a search written with lists."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ModeError, ParameterError
from logitkit.processors.searches import Beams, BoundSearch
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH

END, KEPT, PAD = 3, (1, 2, 3), 258
SUPPRESSED = [token for token in range(WIDTH) if token not in KEPT]


def found(search: Any, prompt: torch.Tensor, tokens: int, count: int = 1) -> list[list[int]]:
    """The new tokens of each sequence, without padding; three tokens are possible."""
    options: dict[str, Any] = {"suppress_tokens": SUPPRESSED, "eos_token_id": END, "pad_token_id": PAD}
    options |= {"do_sample": count > 1, "num_return_sequences": count, "max_new_tokens": tokens, "top_k": 0}
    ids = tiny_model().generate(prompt, custom_generate=search, **options)
    return [[token for token in row if token != PAD] for row in ids[:, prompt.shape[1] :].tolist()]


def log_law(prompt: torch.Tensor, text: tuple[int, ...]) -> dict[int, float]:
    """log p of each next token."""
    with torch.no_grad():
        logits = tiny_model()(torch.cat([prompt, torch.tensor([text], dtype=torch.long)], dim=1)).logits[0, -1]
    return dict(zip(KEPT, logits[list(KEPT)].double().log_softmax(-1).tolist(), strict=True))


def every_text(prompt: torch.Tensor, length: int) -> dict[tuple[int, ...], float]:
    """log p of every text that ends, or has this many tokens."""
    texts, waiting = {}, {(): 0.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for text, total in waiting.items():
            for token, logp in log_law(prompt, text).items():
                (texts if token == END else longer)[(*text, token)] = total + logp
        waiting = longer
    return texts | waiting


def reference(prompt: torch.Tensor, length: int, width: int, groups: int, diversity: float) -> list[list[int]]:
    """The texts of all groups, by lists: the best of each group, then the seconds."""
    beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(groups)]
    for _ in range(length):
        taken: dict[int, int] = {}
        for group in range(groups):
            longer = []
            for total, text in beams[group]:
                if text and text[-1] == END:
                    longer.append((total, text))
                    continue
                for token, logp in log_law(prompt, text).items():
                    longer.append((total + logp - diversity * taken.get(token, 0), (*text, token)))
            grown = {text for _, text in beams[group]}
            beams[group] = sorted(longer, key=lambda item: -item[0])[: width // groups]
            for token in {text[-1] for _, text in beams[group] if text not in grown}:
                taken[token] = taken.get(token, 0) + 1
    ranks = [sorted(group, key=lambda item: -item[0]) for group in beams]
    texts: list[list[int]] = []
    for rank in range(width // groups):
        each = sorted((group[rank] for group in ranks if rank < len(group)), key=lambda item: -item[0])
        texts += [list(text) for _, text in each]
    return texts


def test_wide_beams_find_the_likeliest_texts() -> None:
    """With a beam for every text, the sequences are all texts in the order of their probabilities."""
    prompt = torch.tensor([[1, 2, 1]])
    law = every_text(prompt, 3)
    best = sorted(law, key=lambda text: -law[text])
    assert found(Beams(width=15), prompt, 3, 15) == [list(text) for text in best]
    assert found(Beams(width=15), prompt, 3) == [list(best[0])]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 9), st.sampled_from([(2, 1), (2, 2), (4, 2), (3, 3), (6, 2)]), st.floats(0, 2))
def test_groups_are_those_of_the_reference(seed: int, shape: tuple[int, int], diversity: float) -> None:
    prompt = torch.randint(1, 3, (1, 4), generator=torch.Generator().manual_seed(seed))
    width, groups = shape
    search = Beams(width=width, groups=groups, diversity=diversity)
    want = reference(prompt, 4, width, groups, diversity)
    assert found(search, prompt, 4, width) == want


def test_one_group_is_beam_search() -> None:
    """In a batch with padding, the best text is that of transformers without a length penalty."""
    ids = torch.randint(0, 256, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options: dict[str, Any] = {"max_new_tokens": 5, "pad_token_id": PAD, "attention_mask": mask, "do_sample": False}
    got = tiny_model().generate(ids, custom_generate=Beams(width=4), **options)
    want = tiny_model().generate(ids, num_beams=4, length_penalty=0.0, **options)
    assert torch.equal(got, want)
    one = tiny_model().generate(ids, custom_generate=Beams(width=1), **options)
    assert torch.equal(one, tiny_model().generate(ids, **options))


def test_weights_are_the_probabilities_of_the_texts() -> None:
    """Normalised over the returned texts; what diversity took from a score is no part of them."""
    prompt = torch.tensor([[1, 2, 1]])
    law = every_text(prompt, 3)
    for search in (Beams(width=6), Beams(width=6, groups=3, diversity=1.0)):
        bound = BoundSearch(search)
        texts = found(bound, prompt, 3, 6)
        logp = torch.tensor([law[tuple(text)] for text in texts]).double()
        counts = torch.tensor([float(texts.count(text)) for text in texts])  # a text of two groups shares its weight
        assert bound.log_weights is not None
        torch.testing.assert_close(bound.log_weights[0], (logp - counts.log()).log_softmax(-1), rtol=0, atol=1e-6)


def test_weights_behind_an_attribute_hold_its_probability() -> None:
    """p(x) P(a | x), up to a constant: the scores of the conditional search, by two forwards of the whole text."""
    chain = "attribute({'length': 3}, strength=2.0) | beams(width=4)"
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "ab")
    call.generate(max_new_tokens=3, num_return_sequences=4)
    assert call.search is not None and call.search.log_weights is not None
    weights = call.search.log_weights[0]
    torch.testing.assert_close(weights.exp().sum(), torch.tensor(1.0).double())
    assert weights.tolist() == sorted(weights.tolist(), reverse=True)  # one group: the order of the scores


def test_diverse_groups_begin_differently() -> None:
    """With a large diversity every group takes a first token of its own."""
    prompt = torch.tensor([[2, 1]])
    texts = found(Beams(width=3, groups=3, diversity=50.0), prompt, 2, 3)
    assert sorted(text[0] for text in texts) == [1, 2, 3]
    same = found(Beams(width=3, groups=3, diversity=0.0), prompt, 2, 3)
    assert same[0] == same[1] == same[2]


def test_refused() -> None:
    with pytest.raises(ParameterError, match="beams: groups must be a divisor of width 4, got 3"):
        Beams(width=4, groups=3)
    with pytest.raises(ModeError, match="at most 2"):
        found(Beams(width=2), torch.tensor([[1]]), 2, 3)
    assert math.isclose(sum(map(math.exp, every_text(torch.tensor([[1]]), 2).values())), 1.0)
