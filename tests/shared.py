"""What the tests of a process share: the tiny models and tokenizers, each made once."""

from __future__ import annotations

import gc
import sys
from typing import Any

FUNCTIONS = ("tiny_tokenizer", "foreign_tokenizer", "tiny_model", "foreign_model", "encoder_decoder_model")


def state() -> dict[str, tuple[Any, ...]]:
    """Return what tests must leave as it is, of each shared object that was made so far."""
    module = sys.modules.get("logitkit.registry.laws.tiny_models")
    found = {}
    for name in FUNCTIONS if module is not None else ():
        for cache in gc.get_referents(getattr(module, name)):  # the results that functools.cache keeps
            for made in cache.values() if isinstance(cache, dict) else ():
                if hasattr(made, "generation_config"):
                    found[f"{name} {id(made)}"] = _of_model(made)
                elif hasattr(made, "backend_tokenizer"):
                    found[f"{name} {id(made)}"] = _of_tokenizer(made)
    return found


def _of_model(model: Any) -> tuple[Any, ...]:
    """Return the settings of a model."""
    config = model.config
    return (
        str(sorted(vars(model.generation_config).items())),
        getattr(config, "num_hidden_layers", None),
        model.training,
        model.dtype,
    )


def _of_tokenizer(tokenizer: Any) -> tuple[Any, ...]:
    """Return the tokens of a tokenizer and how it pads and truncates."""
    inner = tokenizer.backend_tokenizer
    sides = tokenizer.padding_side, tokenizer.truncation_side, str(inner.truncation)
    return len(tokenizer), str(tokenizer.special_tokens_map), tokenizer.chat_template, *sides
