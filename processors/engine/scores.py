"""Rows of scores: width and impossible entries."""

from __future__ import annotations

import torch
from torch import Tensor


def fit(logits: Tensor, width: int) -> Tensor:
    """Bring ``[rows, own vocab]`` to the width of the scores: padded ids more or fewer carry no evidence."""
    missing = width - logits.shape[-1]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing > 0 else logits[:, :width]
