"""A cascade of two models with different tokenizers, both used as byte models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.registry.laws import tiny_model, tiny_tokenizer


@pytest.mark.parametrize(("alpha", "alone"), [(0.0, "large"), (1.0, "small")])
def test_extreme_alphas_give_one_model_alone(smollm2: Any, alpha: float, alone: str) -> None:
    """With greedy decoding, alpha 0 gives the text of the large byte model and alpha 1 that of the small one."""
    pair = {"small": ByteModel(tiny_model(), tiny_tokenizer()), "large": ByteModel(*smollm2)}
    tokenizer = byte_tokenizer()
    chain = f"cascade(large='big', rule='chow', alpha={alpha}, temperature=0.0)"
    call = logitkit.chain(chain).bind(
        pair["small"], tokenizer, "The capital of", big=pair["large"], tokenizers={"big": tokenizer}
    )
    got = call.generate(max_new_tokens=5, do_sample=False)
    assert torch.equal(got, pair[alone].generate(**call.inputs, max_new_tokens=5, do_sample=False))
