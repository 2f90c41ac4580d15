"""The model that is measured: a known one, or one of random weights, since speed asks for no sense."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from logitkit import models
from logitkit.errors import ParameterError

# Shapes of known models: hidden, intermediate, layers, heads, key-value heads. "7b" is Llama 2's.
RANDOM_SHAPES = {"random-7b": (4096, 11008, 32, 32, 32), "random-1b": (2048, 5632, 22, 32, 4)}


def load(name: str, *, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Args:
        name: what `logitkit.models.load` takes, or ``random-7b`` or ``random-1b``: weights drawn at random,
            with the tokenizer of smollm2-135m.
        device: where to.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ParameterError: a device that torch does not have here, or another dtype.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ParameterError("bench", "dtype", "float32, bfloat16 or float16", dtype)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError("bench", "device", "one that torch has here", device) from error
    like = SimpleNamespace(dtype=getattr(torch, dtype), device=torch.device(device))
    if name not in RANDOM_SHAPES:
        loaded: tuple[Any, Any] = models.load(name, like=like)
        return loaded
    _, tokenizer = models.load("smollm2-135m")
    hidden, intermediate, layers, heads, groups = RANDOM_SHAPES[name]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype=like.dtype,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(like.dtype)
    try:
        with torch.device(like.device):  # made where they stay: 7 billion numbers pass no second memory
            return LlamaForCausalLM(config).eval(), tokenizer
    finally:
        torch.set_default_dtype(before)
