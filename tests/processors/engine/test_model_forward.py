"""Errors inside the forward of a stream's model are the model's, and the plugin is not blamed for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import logitkit
from fakes import encoder_decoder_model
from logitkit.errors import ModelError
from logitkit.processors.engine.model_forward import forwarded
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

CASES = {
    "cfg(2.0, negative='no')": (tiny_model, {}, {}),
    "ensemble(models=['large'])": (foreign_model, {"large": None}, {"large": foreign_tokenizer}),
    "cad(alpha=0.5, context='a')": (encoder_decoder_model, {}, {}),
}


@pytest.mark.parametrize("text", CASES)
def test_a_failing_forward_names_the_model(text: str) -> None:
    """Streams of the same model, of another tokenizer, and of an encoder-decoder say ModelError with the cause."""
    make, resources, tokenizers = CASES[text]
    failing = copy.deepcopy(make())
    model = tiny_model() if resources else failing
    resources = dict.fromkeys(resources, failing)
    given: Any = {name: tokenizer() for name, tokenizer in tokenizers.items()}
    call = logitkit.chain(text).bind(model, tiny_tokenizer(), "a fox", tokenizers=given, **resources)

    def fails(*_: object) -> None:
        raise RuntimeError("no such device")

    failing.register_forward_pre_hook(fails)
    scores = torch.zeros(1, model.config.vocab_size)
    rows = call.prompts.ids if not call.prompts.in_encoder else torch.tensor([[0]])
    with pytest.raises(ModelError, match=f"{type(failing).__name__}: the forward must .*RuntimeError: no such device"):
        call.composite(rows, scores)


def test_exhausted_memory_passes() -> None:
    """Out of memory keeps its own type, so that callers can retry with smaller batches."""

    def exhausted(**_: Any) -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        forwarded(exhausted)
