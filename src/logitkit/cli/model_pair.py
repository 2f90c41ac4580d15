"""Loads the small and the large model of a router."""

from __future__ import annotations

from typing import Any

from logitkit.errors import ModelError


def load_pair(command: str, small: str, large: str) -> tuple[Any, Any, Any]:
    """Return the small model, the large model and their tokenizer.

    Args:
        command: the command that errors name.
        small: a known name, a folder, or a hub id.
        large: the same for the large model.

    Raises:
        ModelError: the two models have different vocabularies.
    """
    from logitkit import models

    (small_model, tokenizer), (large_model, other) = models.load(small), models.load(large)
    if tokenizer.get_vocab() != other.get_vocab():
        raise ModelError(
            f"{command}: {large} must have the tokenizer of {small}, got another vocabulary; "
            "choose two models of one family"
        )
    return small_model, large_model, tokenizer
