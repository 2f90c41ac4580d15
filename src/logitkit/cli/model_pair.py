"""Loads the small and the large model of a router."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logitkit.processors.cascade import ModelPair


def load_pair(command: str, small: str, large: str) -> ModelPair:
    """Return a small model, a large model and their tokenizer.

    Args:
        command: name of the command, for error messages.
        small: a known name, a folder, or a hub id.
        large: the same for the large model.

    Raises:
        ModelError: an id stands for other text in the two models.
    """
    from logitkit import models
    from logitkit.processors.cascade import ModelPair

    (small_model, tokenizer), (large_model, other) = models.load(small), models.load(large)
    pair = ModelPair(small=small_model, large=large_model, tokenizer=tokenizer, large_tokenizer=other)
    pair.agreement.check(command, large, way_out="choose two models of one family")
    return pair
