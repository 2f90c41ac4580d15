"""Models whose speed is measured: known models, and models with random weights and a realistic architecture."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from logitkit import models
from logitkit.models.placement import placement


class ModelSizes(NamedTuple):
    """Sizes of a Llama model.

    Attributes:
        hidden: width of the hidden states.
        intermediate: width of the feed-forward layers.
        layers: number of layers.
        heads: number of attention heads.
        key_value_heads: number of key-value heads.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int


RANDOM_SIZES = {  # random-7b has the sizes of Llama 2 7B, random-1b those of TinyLlama 1.1B
    "random-7b": ModelSizes(4096, 11008, 32, 32, 32),
    "random-1b": ModelSizes(2048, 5632, 22, 32, 4),
}


def load(name: str, *, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Args:
        name: a name that `logitkit.models.load` accepts, or a key of `RANDOM_SIZES`: a model with random weights and
            the tokenizer of smollm2-135m.
        device: torch device of the model.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ParameterError: torch does not have the device on this machine, or the dtype is unknown.
    """
    like = placement("bench", device, dtype)
    if name not in RANDOM_SIZES:
        loaded: tuple[Any, Any] = models.load(name, like=like)
        return loaded
    _, tokenizer = models.load("smollm2-135m")
    return random_model(RANDOM_SIZES[name], tokenizer, like), tokenizer


def random_model(sizes: ModelSizes, tokenizer: Any, like: Any, *, vocabulary: int = 0) -> Any:
    """Return a Llama model with random weights.

    Args:
        sizes: of the model.
        tokenizer: its tokenizer.
        like: has the device and dtype of the model.
        vocabulary: number of logits; 0: the size of the tokenizer.
    """
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype=like.dtype,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(like.dtype)
    try:
        with torch.device(like.device):  # creates the weights on their device, so that no copy is needed
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
