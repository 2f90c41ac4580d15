"""Inspections of the tiny model."""

from __future__ import annotations

from typing import Any

from logitkit.inspection import Inspection, inspect
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer


def inspect_tiny_model(chain: str, prompt: Any = "Once", **settings: Any) -> Inspection:
    """Return an inspection of the tiny model, of eight tokens unless the settings say otherwise."""
    return inspect(tiny_model(), tiny_tokenizer(), prompt, chain, **({"max_new_tokens": 8} | settings))


def inspect_foreign_model(chain: str, prompt: Any = "on the", **settings: Any) -> Inspection:
    """Return an inspection of a tiny model whose tokenizer has merges; sampled, so that it leaves the encoding."""
    defaults = {"max_new_tokens": 12, "do_sample": True, "top_k": 0, "seed": 0}
    return inspect(foreign_model(), foreign_tokenizer(), prompt, chain, **(defaults | settings))
