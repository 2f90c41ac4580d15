"""Models over bytes as second streams: all models share the alphabet of bytes, whatever their tokenizers.

The class of such models is `logitkit.processors.byte_level.ByteModel`, which this package does not import: what it
needs of a model over bytes is `OverBytes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from logitkit.errors import ModelError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.tokens.byte_trie import END


@runtime_checkable
class OverBytes(Protocol):
    """A model over bytes: ids 0 to 255 are bytes, and id 256 ends a text."""

    def same_as(self, other: Any) -> bool:
        """Return whether another model, over bytes or over tokens, has the same distributions."""

    def counterpart(self, model: Any, tokenizer: Any) -> Any:
        """Return another model over tokens as a model over bytes, with the settings of this one."""


def main_byte_model(binding: Binding, owner: str) -> Any:
    """Return the generating model.

    Raises:
        ModelError: the generating model or its tokenizer is not over bytes.
    """
    if not isinstance(binding.model, OverBytes):
        raise ModelError(
            f"{owner}: the generating model must be a ByteModel, got {type(binding.model).__name__}; "
            "bind to ByteModel(model, tokenizer) and byte_tokenizer()"
        )
    if len(binding.tokenizer) != END + 1 or binding.tokenizer.eos_token_id != END:
        raise ModelError(
            f"{owner}: tokenizer must be the byte tokenizer, got a tokenizer of {len(binding.tokenizer)} tokens; "
            "bind with byte_tokenizer()"
        )
    return binding.model


def byte_helpers(binding: Binding, owner: str, models: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the named models as byte models with the settings of the generating model.

    Args:
        binding: the call.
        owner: name of the processor, for errors.
        models: names passed to `bind`, known models, hub ids or folders.

    Returns:
        Name and model. A model with the same distributions as the generating model is replaced by the generating model.

    Raises:
        ModelError: the generating model or its tokenizer is not over bytes.
    """
    main = main_byte_model(binding, owner)
    helpers: list[tuple[str, Any]] = []
    for name in models:
        model = binding.model_named(name)
        if main.same_as(model):
            model = main
        elif not isinstance(model, OverBytes):
            model = main.counterpart(model, binding.tokenizer_named(name))
        helpers.append((name, model))
    return helpers
