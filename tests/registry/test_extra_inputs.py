"""Inputs other than tokens that `generate` gets reach no second stream, so a chain with streams refuses them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from fakes import encoder_decoder_model
from logitkit.errors import ModeError
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer
from media_models import encoding, llava

GREEDY: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}


@pytest.mark.parametrize(
    ("text", "stream"), [("cascade(large='large', alpha=0.0)", "large"), ("cfg(2.0, negative='no')", "negative prompt")]
)
def test_images_that_a_stream_would_miss_are_refused(text: str, stream: str) -> None:
    """Images that `generate` gets are refused in `generate` and in the settings of a bare one; they are to be bound."""
    resources = {"large": llava(1)} if "large" in text else {}
    call = logitkit.chain(text).bind(llava(0), tiny_tokenizer(), "a fox", **resources)
    images = {"pixel_values": torch.ones(1, 3, 8, 8)}
    for attempt in (call.generate, call.settings_for):
        with pytest.raises(ModeError, match=f"got also pixel_values, which reach '{stream}' only when they are bound"):
            attempt(**images, **GREEDY)


def test_what_belongs_to_one_generate_is_not_to_be_bound() -> None:
    """Outputs of an encoder cannot be bound with the prompts, so the error has another way out."""
    call = logitkit.chain("cfg(2.0, negative='no')").bind(encoder_decoder_model(), tiny_tokenizer(), "a fox")
    encoded = encoder_decoder_model().get_encoder()(**call.inputs)
    with pytest.raises(ModeError, match=r"got also encoder_outputs, .* 'negative prompt'; leave them out"):
        call.generate(encoder_outputs=encoded, **GREEDY)


def test_images_pass_where_no_stream_needs_them() -> None:
    """A chain without second streams gives what transformers gives for the image."""
    model, images = llava(0), {"pixel_values": torch.ones(2, 3, 8, 8)}
    call = logitkit.chain("top_k(1)").bind(model, tiny_tokenizer(), encoding(4))
    want = model.generate(**call.inputs, **images, **GREEDY)
    assert torch.equal(call.generate(**images, **GREEDY), want)


def test_settings_of_generate_are_no_inputs() -> None:
    """Tensors among the settings, such as end tokens, are no inputs of a stream."""
    call = logitkit.chain("cfg(2.0, negative='no')").bind(tiny_model(), tiny_tokenizer(), "a fox")
    call.generate(eos_token_id=torch.tensor([257]), use_cache=True, output_scores=True, **GREEDY)


def test_universal_assisted_decoding_is_refused_in_a_bare_generate_with_its_reason() -> None:
    """The assistant would ask the chain about rows of its own vocabulary; an empty chain has no such limit."""
    settings = {"tokenizer": tiny_tokenizer(), "assistant_tokenizer": foreign_tokenizer()}
    for text in ("top_k(5)", "cfg(2.0, negative='no')"):
        call = logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), "a fox")
        with pytest.raises(ModeError, match=r"assistant_tokenizer must not be given.*another vocabulary"):
            call.settings_for(assistant_model=tiny_model(1), **settings, **GREEDY)
