"""Tiny random models that read images, recordings or token types besides text, each with an encoding of two prompts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from fakes import absolute_model, seeded
from logitkit.registry.laws import tiny_model, tiny_tokenizer

IMAGE = 270  # the token that stands for a part of an image or of a recording
PAD = 258
TEXTS = ("a fox", "the old man")
CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": PAD,
}


def encoding(parts: int, **inputs: Any) -> dict[str, Any]:
    """Return two prompts, each ``parts`` image tokens and a text, padded on the left."""
    rows = [[IMAGE] * parts + tiny_tokenizer()(text)["input_ids"] for text in TEXTS]
    padded = tiny_tokenizer().pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"], **inputs}


def noise(*shape: int) -> torch.Tensor:
    """Return normal random numbers of a fixed seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def one_of(inputs: dict[str, Any], number: int) -> dict[str, Any]:
    """Return one prompt of an encoding whose inputs have one entry a prompt, without padding."""
    row = {name: value[number : number + 1] for name, value in inputs.items()}
    width = int(row["attention_mask"].sum())
    aligned = [name for name, value in row.items() if value.shape == inputs["input_ids"][:1].shape]
    return row | {name: row[name][:, -width:] for name in aligned}


@functools.cache
def llava(seed: int = 0) -> Any:
    """Return a Llava whose images have four parts."""
    vision = hf.CLIPVisionConfig(**CLIP, image_size=8, patch_size=4, projection_dim=16)
    config = hf.LlavaConfig(
        text_config=tiny_model().config, vision_config=vision, image_token_index=IMAGE, vision_feature_layer=-1
    )
    return seeded(lambda: hf.LlavaForConditionalGeneration(config), seed)


@functools.cache
def qwen(seed: int = 0) -> Any:
    """Return a Qwen2-VL, whose text continues at a position that depends on the sizes of the images."""
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = hf.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config={"embed_dim": 16, "hidden_size": 32, "depth": 1, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2},
        image_token_id=IMAGE,
        video_token_id=269,
        vision_start_token_id=268,
        vision_end_token_id=267,
    )
    return seeded(lambda: hf.Qwen2VLForConditionalGeneration(config), seed)


@functools.cache
def gemma(seed: int = 0) -> Any:
    """Return a Gemma 3, whose image tokens read each other in both directions and whose text has sliding windows."""
    config = hf.Gemma3Config(
        text_config={
            **TEXT,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config={**CLIP, "image_size": 8, "patch_size": 2},
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
        boi_token_id=268,
        eoi_token_id=267,
    )
    return seeded(lambda: hf.Gemma3ForConditionalGeneration(config), seed)


@functools.cache
def idefics(seed: int = 0) -> Any:
    """Return an Idefics3, whose images come with a mask of their pixels and with a dimension for several images."""
    config = hf.Idefics3Config(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**CLIP, "image_size": 8, "patch_size": 2},
        scale_factor=2,
        image_token_id=IMAGE,
        pad_token_id=PAD,
    )
    return seeded(lambda: hf.Idefics3ForConditionalGeneration(config), seed)


@functools.cache
def audio(seed: int = 0) -> Any:
    """Return a Qwen2-Audio, which reads recordings."""
    config = hf.Qwen2AudioConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 8,
            "max_source_positions": 8,
        },
        audio_token_index=IMAGE,
    )
    return seeded(lambda: hf.Qwen2AudioForConditionalGeneration(config), seed)


@functools.cache
def mllama(seed: int = 0) -> Any:
    """Return a Mllama, whose text reads images by cross-attention, with a mask that has a row for each token."""
    config = hf.MllamaConfig(
        text_config={**TEXT, "cross_attention_layers": [1], "num_hidden_layers": 3},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
            "vision_output_dim": 32,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1]],
            "max_num_tiles": 1,
        },
        image_token_index=IMAGE,
    )
    model = seeded(lambda: hf.MllamaForConditionalGeneration(config), seed)
    for name, gate in model.named_parameters():
        if "gate" in name and gate.numel() == 1:
            gate.data.fill_(1.0)  # 0 at the beginning of a training: no image would be read
    return model


# A Bart or a LED with two layers in its encoder and its decoder.
ENCODER_DECODER = {
    "vocab_size": 272,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "init_std": 0.3,
    "decoder_start_token_id": 257,
    "forced_eos_token_id": None,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": PAD,
}


@functools.cache
def bart(seed: int = 0) -> Any:
    """Return a Bart, whose decoder has absolute positions."""
    return seeded(lambda: hf.BartForConditionalGeneration(hf.BartConfig(**ENCODER_DECODER)), seed)


@functools.cache
def led(seed: int = 0) -> Any:
    """Return a LED, whose encoder takes a mask of the tokens that read the whole text."""
    lengths = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}
    config = hf.LEDConfig(**ENCODER_DECODER, **lengths, attention_window=4)
    return seeded(lambda: hf.LEDForConditionalGeneration(config), seed)


def typed(parts: int) -> torch.Tensor:
    """Return token types: 1 for a part of an image, 0 for text and padding."""
    return (encoding(parts)["input_ids"] == IMAGE).long()


ENCODINGS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "llava": (llava, lambda: encoding(4, pixel_values=noise(2, 3, 8, 8))),
    "qwen": (
        qwen,
        lambda: encoding(
            4,
            pixel_values=noise(32, 3 * 2 * 4 * 4),
            image_grid_thw=torch.tensor([[1, 4, 4]] * 2),
            mm_token_type_ids=typed(4),
        ),
    ),
    "gemma": (gemma, lambda: encoding(4, pixel_values=noise(2, 3, 8, 8), token_type_ids=typed(4))),
    "idefics": (
        idefics,
        lambda: encoding(
            4, pixel_values=noise(2, 1, 3, 8, 8), pixel_attention_mask=torch.ones(2, 1, 8, 8, dtype=torch.bool)
        ),
    ),
    "audio": (
        audio,
        lambda: encoding(4, input_features=noise(2, 8, 16), feature_attention_mask=torch.ones(2, 16, dtype=torch.long)),
    ),
    "mllama": (
        mllama,
        lambda: encoding(
            1,
            pixel_values=noise(2, 1, 1, 3, 8, 8),
            aspect_ratio_ids=torch.ones(2, 1, dtype=torch.long),
            aspect_ratio_mask=torch.ones(2, 1, 1, dtype=torch.long),
            cross_attention_mask=torch.ones(2, 12, 1, 1, dtype=torch.long),
        ),
    ),
    "gpt2": (absolute_model, lambda: encoding(0, token_type_ids=torch.tensor([[7] * 11, [9] * 11]))),
}
