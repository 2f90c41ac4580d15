"""Fingerprints of models, which tie a trained head to the model that it was trained for.

Names and paths of models differ between machines, so a fingerprint reads the weights: name, shape and first
numbers of every parameter. The numbers are rounded to bfloat16, in which copies of one model loaded in different
dtypes agree.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

NUMBERS_READ = 8  # leading numbers of each parameter that enter a fingerprint


def model_fingerprint(model: Any) -> str:
    """Return 16 hex digits that identify a model's weights, independent of dtype and device.

    >>> from logitkit.registry.laws import tiny_model
    >>> len(model_fingerprint(tiny_model()))
    16
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        first = parameter.detach().flatten()[:NUMBERS_READ].to("cpu", torch.bfloat16).float()
        digest.update(f"{name} {tuple(parameter.shape)} {first.tolist()}".encode())
    return digest.hexdigest()[:16]
