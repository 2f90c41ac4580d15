"""Inspections of the tiny model."""

from __future__ import annotations

from typing import Any

from logitkit.inspection import Inspection, inspect
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def inspect_tiny_model(chain: str, prompt: Any = "Once", **settings: Any) -> Inspection:
    """Return an inspection of the tiny model, of eight tokens unless the settings say otherwise."""
    return inspect(tiny_model(), tiny_tokenizer(), prompt, chain, **({"max_new_tokens": 8} | settings))
