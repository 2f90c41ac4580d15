"""Which pair of models something was trained for: a fingerprint of weights and tokenizer.

Names and paths differ between machines, so the weights themselves are looked at: of every parameter its
name, shape and first numbers, rounded to bfloat16, in which a model loaded in another dtype agrees.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from logitkit.errors import ModelError
from logitkit.processors.tokens.vocabulary import fingerprint

LOOKED_AT = 8  # numbers of each parameter


def model_fingerprint(model: Any) -> str:
    """16 hex digits that tell models apart, whatever dtype and device they are loaded on."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        first = parameter.detach().flatten()[:LOOKED_AT].to("cpu", torch.bfloat16).float()
        digest.update(f"{name} {tuple(parameter.shape)} {first.tolist()}".encode())
    return digest.hexdigest()[:16]


def pair_fingerprint(small: Any, large: Any, tokenizer: Any) -> dict[str, str]:
    """Fingerprints of a small model, a large one and their tokenizer."""
    return {
        "small": model_fingerprint(small),
        "large": model_fingerprint(large),
        "tokenizer": fingerprint(tokenizer),
    }


def check_pair(owner: str, trained_for: dict[str, str], found: dict[str, str]) -> None:
    """Refuse what was trained for another pair.

    Raises:
        ModelError: says which of the three differs.
    """
    other = [part for part in ("small", "large", "tokenizer") if trained_for.get(part) != found.get(part)]
    if other:
        part = other[0]
        raise ModelError(
            f"{owner}: the head must have been trained for this pair of models, got one for another {part} "
            f"(fingerprint {trained_for.get(part)}, here {found.get(part)}); train one for this pair"
        )
