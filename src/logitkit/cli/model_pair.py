"""Loads the small and the large model of a router."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logitkit.processors.cascade import ModelPair


def load_pair(command: str, small: str, large: str, device: str, dtype: str) -> ModelPair:
    """Return a small model, a large model and their tokenizer.

    Args:
        command: name of the command, for error messages.
        small: a known name, a folder, or a hub id.
        large: the same for the large model.
        device, dtype: of both models; see `logitkit.models.placement.placement`.

    Raises:
        ParameterError: torch does not have the device on this machine, or the dtype is unknown.
        ModelError: an id stands for other text in the two models.
    """
    from logitkit import models
    from logitkit.models.placement import placement
    from logitkit.processors.cascade import ModelPair

    like = placement(command, device, dtype)
    (small_model, tokenizer), (large_model, other) = models.load(small, like=like), models.load(large, like=like)
    pair = ModelPair(small=small_model, large=large_model, tokenizer=tokenizer, large_tokenizer=other)
    pair.agreement.check(command, large, way_out="choose two models of one family")
    return pair
