"""`ByteModel` and ``byte_ensemble`` on real models with different tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from logitkit import models
from logitkit.errors import LogitkitError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer, rows_of

TEXT = "The capital of France is Pa"


@pytest.fixture(scope="module")
def byte_model(smollm2: Any) -> ByteModel:
    """Return SmolLM2-135M as a model over bytes."""
    return ByteModel(*smollm2, tolerance=1e-4)


def test_it_writes_from_inside_a_word(byte_model: ByteModel) -> None:
    """Greedy decoding completes words of prompts cut inside a token, in a padded batch as for each alone."""
    prompts = [TEXT, "One, two, thr"]
    tokenizer = byte_tokenizer()
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    together = logitkit.generate(byte_model, tokenizer, prompts, **settings).texts
    assert together[0].startswith("ris") and together[1].startswith("ee")
    byte_model.release()
    assert together == [logitkit.generate(byte_model, tokenizer, text, **settings).texts[0] for text in prompts]


def test_a_step_is_one_forward(byte_model: ByteModel) -> None:
    """Sixteen bytes in two sampled rows cost at most one forward a step."""
    byte_model.release()
    inputs = rows_of([TEXT.encode()])
    byte_model(**inputs, logits_to_keep=1)
    before = byte_model.forwards
    torch.manual_seed(0)
    byte_model.generate(**inputs, max_new_tokens=16, min_new_tokens=16, do_sample=True, num_return_sequences=2)
    assert byte_model.forwards - before <= 15


@pytest.mark.slow  # the merges of Gemma are half a million
def test_two_models_with_different_tokenizers(byte_model: ByteModel) -> None:
    """A sequence mixture of SmolLM2 and Gemma starts at the mean of their distributions and completes the word."""
    try:
        found = models.load("gemma-3-270m")
    except LogitkitError as error:
        pytest.skip(f"gemma-3-270m cannot be had: {error}")
    other = ByteModel(*found, tolerance=1e-4)
    call = logitkit.chain("byte_ensemble(models=['gemma'], fuse='sequence')").bind(
        byte_model, byte_tokenizer(), TEXT, gemma=other
    )
    distributions = [model.logp([TEXT.encode()])[0] for model in (byte_model, other)]
    got = call.composite(call.inputs["input_ids"], distributions[0][None])[0]
    torch.testing.assert_close(got.exp(), (distributions[0].exp() + distributions[1].exp()) / 2, atol=1e-5, rtol=0)
    assert call.texts(call.generate(max_new_tokens=3, do_sample=False)) == ["ris"]
