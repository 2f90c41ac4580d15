"""Padding of prompts: where it is, which id it has, and how processors ignore it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from logitkit.processors.engine import Prompts, left_padded, pad_token, read_prompts, without_padding
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_rows_of_unequal_length_are_padded_on_the_left() -> None:
    """The mask is 0 on padding; an empty row is padding alone."""
    ids, mask = left_padded([[5], [], [6, 7]], pad=9)
    assert ids.tolist() == [[9, 5], [9, 9], [6, 7]] and mask.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert left_padded([], pad=9)[0].shape == (0, 0)


@pytest.mark.parametrize(
    ("tokenizer_pad", "model_pad", "tokenizer_end", "model_end", "want"),
    [
        (1, 2, 3, 4, 1),
        (None, 2, 3, 4, 2),
        (None, None, 3, 4, 3),
        (None, None, None, [4, 5], 4),
        (None, None, None, None, 0),
    ],
)
def test_the_id_of_padding(tokenizer_pad: Any, model_pad: Any, tokenizer_end: Any, model_end: Any, want: int) -> None:
    """The pad tokens of tokenizer and model come first, then their end tokens, then 0."""
    tokenizer = SimpleNamespace(pad_token_id=tokenizer_pad, eos_token_id=tokenizer_end)
    model = SimpleNamespace(generation_config=SimpleNamespace(pad_token_id=model_pad, eos_token_id=model_end))
    assert pad_token(tokenizer, model) == want


def test_padding_on_the_right_is_moved_to_the_left() -> None:
    """Encoded prompts may be padded on either side; `generate` needs the padding on the left."""
    inputs = {"input_ids": torch.tensor([[5, 0], [6, 7]]), "attention_mask": torch.tensor([[1, 0], [1, 1]])}
    prompts = read_prompts(tiny_tokenizer(), tiny_model(), inputs)
    assert prompts.ids[:, 1].tolist() == [5, 7] and prompts.mask.tolist() == [[0, 1], [1, 1]]
    assert prompts.tokens(0) == [5] and prompts.padded


def test_processors_see_an_impossible_id_instead_of_padding() -> None:
    """Each row is matched to its prompt by content, and only padding of the prompt is replaced."""
    prompts = Prompts(
        ids=torch.tensor([[0, 5], [6, 7]]),
        mask=torch.tensor([[0, 1], [1, 1]]),
        texts=("", ""),
        messages=(None, None),
        adds_specials=False,
    )
    rows = torch.tensor([[6, 7, 0], [0, 5, 0]])
    assert without_padding(prompts, rows, vocab=10).tolist() == [[6, 7, 0], [10, 5, 0]]
    assert without_padding(None, rows, vocab=10) is rows and rows[1, 0] == 0
