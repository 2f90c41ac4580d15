"""Tiny models over bytes, on which the laws try what needs a ByteModel."""

from __future__ import annotations

from typing import Any

from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.byte_level.tokenizer import byte_tokenizer
from logitkit.registry.laws.tiny_models import foreign_model, foreign_tokenizer, tiny_model


def byte_models(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Resources of a Spec's example: the tiny model over bytes to bind to, and another, ``byte_model``."""
    return {
        "model": ByteModel(model, tokenizer),
        "tokenizer": byte_tokenizer(),
        "byte_model": ByteModel(tiny_model(1), tokenizer),
    }


def stranger(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Resources of a Spec's example: the model ``stranger``, with its tokenizer."""
    return {"stranger": foreign_model(), "tokenizers": {"stranger": foreign_tokenizer()}}
