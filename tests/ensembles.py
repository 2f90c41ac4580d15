"""Chains of ensembles bound to tiny models with different tokenizers."""

from __future__ import annotations

from typing import Any

import torch

import logitkit
from foreign import foreign_model, foreign_tokenizer, sentencepiece_tokenizer
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "the three"]
RESOURCES = {"far": foreign_model(), "piece": foreign_model("absolute", 1)}
TOKENIZERS = {"far": foreign_tokenizer(), "piece": sentencepiece_tokenizer()}


def bound(chain: str, prompts: Any = PROMPTS, trace: bool = False, **resources: Any) -> Any:
    """Return a chain bound to the tiny model, with the foreign models that the chain names."""
    used = {name: model for name, model in {**RESOURCES, **resources}.items() if f"'{name}'" in chain}
    tokenizers = {**TOKENIZERS, "other": tiny_tokenizer()}
    return logitkit.chain(chain).bind(
        tiny_model(), tiny_tokenizer(), prompts, trace=trace, tokenizers=tokenizers, **used
    )


def decode(call: Any, **mode: Any) -> torch.Tensor:
    """Return the prompts with ten new tokens, greedy unless ``mode`` says otherwise."""
    torch.manual_seed(0)
    return call.generate(**{"max_new_tokens": 10, "do_sample": False, **mode})
