"""Budgets of a crossover: how many positions of a row may switch to the other model."""

from __future__ import annotations

import torch
from torch import Tensor


def budget_left(used: Tensor, position: int, budget: float | None) -> Tensor:
    """Return the rows that may still switch at a position.

    Args:
        used: number of earlier positions that switched, ``[rows]``.
        position: number of tokens between the end of the prompt and this position; the first position is 0.
        budget: an ``int`` limits the number of switched positions of a row. A ``float`` from 0 to 1 limits the
            share: a row may switch at position t when fewer than ``budget * (t + 1)`` positions have switched.
            None sets no limit.

    Returns:
        bool ``[rows]``.

    >>> budget_left(torch.tensor([0, 1, 2]), 3, 0.5)
    tensor([ True,  True, False])
    """
    if budget is None:
        return torch.ones_like(used, dtype=torch.bool)
    if isinstance(budget, int):
        return used < budget
    return used < budget * (position + 1) - 1e-9  # a rounding error must not permit one more position


def switches_within_budget(requested: Tensor, budget: float | None) -> Tensor:
    """Return the positions that switch when requests are served in order until the budget is spent.

    Args:
        requested: positions whose score exceeds the threshold, bool ``[rows, positions]``; column 0 is the first
            position after the prompt.
        budget: as in `budget_left`.

    Returns:
        bool ``[rows, positions]``, a subset of ``requested``.

    >>> switches_within_budget(torch.tensor([[True, True, False, True]]), 2)
    tensor([[ True,  True, False, False]])
    """
    used = requested.new_zeros(len(requested), dtype=torch.long)
    switched = torch.zeros_like(requested)
    for position in range(requested.shape[1]):
        switched[:, position] = requested[:, position] & budget_left(used, position, budget)
        used = used + switched[:, position]
    return switched
