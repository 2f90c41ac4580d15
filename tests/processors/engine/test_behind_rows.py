"""A text behind the rows: exact logits, the cache of `generate` untouched, and a reader where it cannot serve."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from fakes import absolute_model, sliding_model
from logitkit.processors.engine import BehindRows, Binding, read_prompts
from logitkit.processors.transformers_api import with_cache
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXT = [7, 8, 9]
KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
PROMPTS = ["one prompt", "a second, longer prompt"]


def recomputed(model: Any, prompts: Any, rows: Tensor) -> Tensor:
    """Return the logits after each row and the text, each read alone, without padding and without a cache."""
    own = []
    for row in rows:
        prompt = int(prompts.rows(rows)[len(own)])
        ids = [*prompts.tokens(prompt), *row[prompts.width :].tolist(), *TEXT]
        own.append(model(torch.tensor([ids]), use_cache=False).logits[:, -1].float())
    return torch.cat(own)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_equals_recomputation_and_leaves_the_cache_alone(kind: str) -> None:
    """Steps of a padded batch, rows in turn: the logits of a whole forward, and every bit of the cache as before."""
    model = KINDS[kind]()
    prompts = read_prompts(tiny_tokenizer(), model, PROMPTS)
    stream, cache, rows = BehindRows(Binding(model, tiny_tokenizer(), prompts), TEXT), DynamicCache(), prompts.ids
    cache = DynamicCache(config=model.config)
    mask, new = prompts.mask, prompts.ids
    for step in range(12):  # beyond the window of the sliding model
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -new.shape[1] :]
        scores = model(new, attention_mask=mask, position_ids=positions, **with_cache(cache)).logits[:, -1].float()
        before = [(layer.keys.clone(), layer.values.clone(), layer.get_seq_length()) for layer in cache.layers]
        numbers = torch.tensor([[0], [1], [0, 1]][step % 3])
        got = stream.of_step(rows, scores, numbers.reshape(-1))
        torch.testing.assert_close(got, recomputed(model, prompts, rows)[numbers.reshape(-1)], rtol=1e-4, atol=1e-4)
        for layer, (keys, values, length) in zip(cache.layers, before, strict=True):
            assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
            assert layer.get_seq_length() == length
        new = torch.tensor([[step], [step + 30]])
        rows, mask = torch.cat([rows, new], dim=1), torch.cat([mask, torch.ones_like(new)], dim=1)
    assert stream.forwards == 12 and stream.captured.reader.forwards == 0, "no second cache is read"
    assert stream.tokens == sum(len(TEXT) * part for part in [1, 1, 2] * 4)


@torch.no_grad()
def test_other_rows_are_read_by_the_reader() -> None:
    """Rows that the last forward did not see, and scores that a processor changed, are read from their tokens."""
    model = tiny_model()
    prompts = read_prompts(tiny_tokenizer(), model, PROMPTS)
    stream = BehindRows(Binding(model, tiny_tokenizer(), prompts), TEXT)
    cache = DynamicCache(config=model.config)
    scores = model(prompts.ids, attention_mask=prompts.mask, **with_cache(cache)).logits[:, -1].float()
    rows = torch.cat([prompts.ids, torch.tensor([[3], [4]])], dim=1)
    both = torch.tensor([0, 1])
    for asked, given in ((rows, scores), (prompts.ids, scores + 1), (prompts.ids[[1, 0]], scores[[1, 0]])):
        want = recomputed(model, prompts, asked)
        torch.testing.assert_close(stream.of_step(asked, given, both), want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stream.positions(rows, 2)[:, 1], stream(rows))
    assert stream.forwards == 0 and stream.captured.reader.forwards > 0
