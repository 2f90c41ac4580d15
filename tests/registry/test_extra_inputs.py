"""Inputs other than tokens reach no second stream, so a chain with second streams refuses them by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

import logitkit
from fakes import seeded
from logitkit.errors import ModeError
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer

IMAGE = 270  # the token that stands for a part of an image
GREEDY: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}


def vision_model(seed: int) -> Any:
    """Return a Llava whose images have four parts."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=16,
    )
    config = LlavaConfig(
        text_config=tiny_model().config, vision_config=vision, image_token_index=IMAGE, vision_feature_layer=-1
    )
    return seeded(lambda: LlavaForConditionalGeneration(config), seed)


def prompt() -> dict[str, torch.Tensor]:
    """Return a prompt of an image and a text."""
    return {"input_ids": torch.tensor([[IMAGE] * 4 + tiny_tokenizer()("a fox")["input_ids"]])}


@pytest.mark.parametrize(
    ("text", "stream"), [("cascade(large='large', alpha=0.0)", "large"), ("cfg(2.0, negative='no')", "negative prompt")]
)
def test_images_that_a_stream_would_miss_are_refused(text: str, stream: str) -> None:
    """The error lists the inputs and the stream, in `generate` and in the settings of a bare generate."""
    resources = {"large": vision_model(1)} if "large" in text else {}
    call = logitkit.chain(text).bind(vision_model(0), tiny_tokenizer(), prompt(), **resources)
    images = {"pixel_values": torch.ones(1, 3, 8, 8)}
    for attempt in (call.generate, call.settings_for):
        with pytest.raises(ModeError, match=f"got also pixel_values, which the chain cannot hand to '{stream}'"):
            attempt(**images, **GREEDY)


def test_images_pass_where_no_stream_needs_them() -> None:
    """A chain without second streams gives what transformers gives for the image."""
    model, images = vision_model(0), {"pixel_values": torch.ones(1, 3, 8, 8)}
    call = logitkit.chain("top_k(1)").bind(model, tiny_tokenizer(), prompt())
    want = model.generate(**call.inputs, **images, **GREEDY)
    assert torch.equal(call.generate(**images, **GREEDY), want)


def test_settings_of_generate_are_no_inputs() -> None:
    """Tensors among the settings, such as end tokens, are no inputs of a stream."""
    call = logitkit.chain("cfg(2.0, negative='no')").bind(tiny_model(), tiny_tokenizer(), "a fox")
    call.generate(eos_token_id=torch.tensor([257]), use_cache=True, output_scores=True, **GREEDY)


def test_universal_assisted_decoding_is_refused_with_its_reason() -> None:
    """The assistant would ask the chain about rows of its own vocabulary; an empty chain has no such limit."""
    settings = {"tokenizer": tiny_tokenizer(), "assistant_tokenizer": foreign_tokenizer()}
    for text in ("top_k(5)", "cfg(2.0, negative='no')"):
        call = logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), "a fox")
        with pytest.raises(ModeError, match=r"assistant_tokenizer must not be given.*another vocabulary"):
            call.generate(assistant_model=tiny_model(1), **settings, **GREEDY)
