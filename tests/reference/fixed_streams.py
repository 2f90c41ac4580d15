"""Second streams with fixed logits, and rows of logits with ties and impossible tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def logits_with_ties(seed: int) -> Tensor:
    """Return four rows of 20 logits with impossible tokens; one row is uniform and one has tied maxima."""
    generator = torch.Generator().manual_seed(seed)
    rows = 4 * torch.randn(4, 20, generator=generator)
    rows[torch.rand(4, 20, generator=generator) < 0.2] = -math.inf
    rows[:, seed % 20] = 1.0
    rows[1] = 0.0
    rows[2, :2] = rows[2].max() + 1
    return rows


class CountedStream:
    """A second stream with fixed logits that counts how often it is read."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.reads = rows, 0

    def __call__(self, input_ids: Tensor) -> Tensor:
        self.reads += 1
        return self.rows
