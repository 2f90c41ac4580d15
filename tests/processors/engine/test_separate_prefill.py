"""Prompts that are read apart and joined fill a cache as one forward over all of them does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache

from fakes import sliding_model
from logitkit.processors.engine.separate_prefill import PromptPart, can_join, cheapest, join, merged
from logitkit.processors.transformers_api import with_cache
from logitkit.registry.laws import tiny_model


def read(model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> None:
    """Read prompts into a cache."""
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    model(input_ids=ids, attention_mask=mask, position_ids=positions, **with_cache(cache))


def padded(rows: list[list[int]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask of rows, left-padded to a width."""
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


@pytest.mark.parametrize("make", [tiny_model, sliding_model])
@settings(max_examples=15, deadline=None)
@given(
    first=st.lists(st.lists(st.integers(1, 250), min_size=1, max_size=12), min_size=1, max_size=3),
    second=st.lists(st.integers(1, 250), min_size=1, max_size=20),
    repeats=st.integers(1, 3),
    static=st.booleans(),
    together=st.booleans(),
)
def test_the_joined_cache_equals_one_forward(
    make: Any, first: list[list[int]], second: list[int], repeats: int, static: bool, together: bool
) -> None:
    """A token that follows has the same logits: prompts of any length, repeated rows, and every kind of cache."""
    model = make()
    index = torch.arange(len(first)).repeat_interleave(repeats)
    width = max(len(second), *map(len, first))
    rows = [first[number] for number in index]
    own, other = padded(rows, max(map(len, rows))), padded([second] * len(rows), len(second))
    parts = [PromptPart.of(ids, mask, index) for ids, mask in (own, other)]
    parts = [merged(parts)] if together else parts
    for part in parts:
        read(model, part.ids, part.mask, part.cache)
    caches = [StaticCache(model.config, width + 1) if static else DynamicCache(config=model.config) for _ in range(2)]
    join(caches[0], parts, width)
    ids, mask = padded([*rows, *[second] * len(rows)], width)
    read(model, ids, mask, caches[1])
    ends = mask.sum(-1, keepdim=True)
    mask = torch.cat([mask, torch.ones_like(ends)], dim=1)
    logits = [
        model(input_ids=ends * 0 + 7, attention_mask=mask, position_ids=ends, **with_cache(cache)).logits
        for cache in caches
    ]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


def test_worked_example() -> None:
    """One row of 900 tokens and its second prompt of 10: 910 tokens apart, 1800 in one forward."""
    long, short = (
        PromptPart.of(torch.ones(1, n).long(), torch.ones(1, n).long(), torch.tensor([0])) for n in (900, 10)
    )
    assert cheapest([long, short], 1800) == [long, short] and not cheapest([long, long], 1800)
    assert not cheapest([short, short], 20 + 16)


def test_prompts_of_one_length_are_read_together_once() -> None:
    """Sixteen rows of one prompt of 900 tokens and sixteen of another: 1800 tokens in one forward, not 28,800."""
    parts = [
        PromptPart.of(torch.full((16, 900), n), torch.ones(16, 900).long(), torch.zeros(16).long()) for n in (1, 2)
    ]
    (both,) = cheapest(parts, 32 * 900)
    assert both.ids[:, 0].tolist() == [1, 2] and both.source.tolist() == [0] * 16 + [1] * 16


def test_a_forward_on_an_accelerator_has_to_save_more() -> None:
    """There launching the kernels of a further forward takes as long as reading a thousand tokens."""
    ids, mask = torch.empty(1, 900, dtype=torch.long, device="meta"), torch.ones(1, 900)
    long, short = PromptPart(ids, mask, torch.tensor([0])), PromptPart(ids[:, :1], mask[:, :1], torch.tensor([0]))
    assert not cheapest([long, short], 1800)
    (both,) = cheapest([long, short], 5000)
    assert both.ids.shape == (2, 900)


def test_a_prompt_is_read_once_for_all_of_its_rows() -> None:
    """Four rows of two prompts keep two prompts; a row finds its own."""
    ids = torch.tensor([[1, 2], [1, 2], [0, 3], [0, 3]])
    part = PromptPart.of(ids, (ids > 0).long(), torch.tensor([0, 0, 1, 1]))
    assert part.ids.tolist() == [[1, 2], [0, 3]] and torch.equal(part.ids[part.source], ids)


def test_only_caches_of_keys_and_values_are_joined() -> None:
    """A cache without layers, and one that moves its layers between devices, are filled by one forward."""
    config = tiny_model().config
    assert can_join(DynamicCache(config=config)) and not can_join(DynamicCache())
