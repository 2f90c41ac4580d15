"""Encoded prompts of unknown origin: read exactly, or one PromptError before the model runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import logitkit
from logitkit.errors import LogitkitError, PromptError
from logitkit.registry.laws import tiny_model, tiny_tokenizer

IDS = torch.tensor([[5, 6]])
WIDTH = tiny_model().config.vocab_size


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({"input_ids": torch.tensor([[-1, 5]])}, f">= 0 and < {WIDTH}, the ids that the model embeds, got -1"),
        ({"input_ids": [[5, WIDTH]]}, f"got {WIDTH}"),
        ({"input_ids": [[5, 2**70]]}, "whole numbers"),
        ({"input_ids": torch.tensor([[1.0, 2.0]])}, "integer type such as int64, got float32"),
        ({"input_ids": np.array([[1.5, float("nan")]])}, "got float64"),
        ({"input_ids": torch.tensor([[True, False]])}, "got bool"),
        ({"input_ids": torch.tensor([[1j, 2]])}, "got complex64"),
        ({"input_ids": np.array([[1, 2**63]], dtype=np.uint64)}, "got uint64"),
        ({"input_ids": [[1, 2], [3]]}, "each row of the same length"),
        ({"input_ids": [torch.tensor([1, 2]), torch.tensor([3])]}, "each row of the same length"),
        ({"input_ids": "text"}, "whole numbers"),
        ({"input_ids": [["a"]]}, "whole numbers"),
        ({"input_ids": None}, "whole numbers"),
        ({"input_ids": [[1, None]]}, "whole numbers"),
        ({"input_ids": np.array([[1, None]], dtype=object)}, "whole numbers"),
        ({"input_ids": {"a": 1}}, "whole numbers"),
        ({"input_ids": []}, r"\[prompts, tokens\]"),
        ({"input_ids": [[]]}, r"\[prompts, tokens\]"),
        ({"input_ids": torch.zeros(0, 3, dtype=torch.long)}, r"\[prompts, tokens\]"),
        ({"input_ids": torch.ones(1, 2, 3, dtype=torch.long)}, r"\[prompts, tokens\]"),
        ({"input_ids": [5, 6]}, r"\[prompts, tokens\]"),
        ({"input_ids": IDS.to("meta")}, "meta device"),
        ({"input_ids": IDS.to_sparse()}, "dense"),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[1]])}, r"\[prompts, tokens\]"),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[2, 1]])}, "1 for a token and 0 for padding"),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[0.5, 1.0]])}, "1 for a token and 0 for padding"),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[float("nan"), 1.0]])}, "1 for a token"),
        ({"input_ids": IDS, "attention_mask": "11"}, "attention_mask must be"),
        ({"input_ids": IDS, "attention_mask": torch.ones(1, 2, device="meta")}, "meta device"),
        ({"input_ids": IDS, "attention_mask": torch.tensor([[0, 0]])}, "all padding"),
        ({"input_ids": IDS, 3: IDS}, "got also 3"),
        ({}, "got nothing"),
    ],
)
def test_faulty_encodings_are_one_error(inputs: dict[Any, Any], why: str) -> None:
    """Neither bind, generate nor score reads ids or a mask that the model cannot read."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(PromptError, match=why):
        logitkit.chain("cfg(2.0)").bind(model, tokenizer, inputs)
    with pytest.raises(PromptError, match=why):
        logitkit.generate(model, tokenizer, inputs, max_new_tokens=1)
    with pytest.raises(PromptError, match=why):
        logitkit.score(model, tokenizer, inputs, "a")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("mask", [None, [[0, 1, 1]], torch.tensor([[False, True, True]]), np.array([[0.0, 1.0, 1.0]])])
def test_every_integer_type_is_read(kind: torch.dtype, mask: object) -> None:
    """Ids of a narrower type and masks of truth values or of whole floats mean the same as int64."""
    ids = torch.tensor([[258, 5, 6] if kind.itemsize > 1 else [1, 5, 6]]).to(kind)
    if mask is None:
        ids = ids[:, 1:]
    call = logitkit.chain("top_k(1)").bind(tiny_model(), tiny_tokenizer(), {"input_ids": ids, "attention_mask": mask})
    assert call.prompts.tokens(0) == [5, 6] and call.prompts.ids.dtype == call.prompts.mask.dtype == torch.long
    want = tiny_model().generate(IDS, attention_mask=torch.ones_like(IDS), do_sample=False, max_new_tokens=4)
    assert torch.equal(call.generate(do_sample=False, max_new_tokens=4)[:, -4:], want[:, -4:])


def test_padding_without_a_mask_is_padding() -> None:
    """Without a mask, the padding token is padding as in generate, unless it also ends a text."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    ids = torch.tensor([[258, 258, 5, 6], [7, 8, 9, 10]])
    call = logitkit.chain("").bind(model, tokenizer, {"input_ids": ids})
    assert call.prompts.mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    settings = {"do_sample": False, "max_new_tokens": 3}
    assert torch.equal(call.generate(**settings), model.generate(ids, **settings))
    ends = ids.masked_fill(ids == 258, 257)
    assert bool(logitkit.chain("").bind(model, tokenizer, {"input_ids": ends}).prompts.mask.all())


VALUES = st.recursive(
    st.integers(-3, 300) | st.floats() | st.booleans() | st.none() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
) | arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ids=VALUES, mask=VALUES | st.just([[1]]))
def test_any_encoding_is_read_or_an_error(ids: object, mask: object) -> None:
    """The reader of encoded prompts raises nothing but errors of logitkit, and what it reads the model reads."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for inputs in ({"input_ids": ids}, {"input_ids": [[5]], "attention_mask": mask}):
        try:
            call = logitkit.chain("").bind(model, tokenizer, inputs)
        except LogitkitError as error:
            assert len(str(error)) < 1_000
        else:
            model(**call.inputs)
