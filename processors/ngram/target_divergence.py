"""Choice of a weight for each row such that the row moves by a given Jensen-Shannon divergence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 12  # resolution of the weight: 1 / 4096 of the full weight


def weights_for_divergence(
    target_bits: float, full_weight: float, divergence: Callable[[Tensor], Tensor], like: Tensor
) -> Tensor:
    """Find for each row the weight at which the row moves by ``target_bits``.

    The divergence between the row before and after the move grows with the weight, for tilted and for mixed rows. A
    binary search therefore finds the weight from below.

    Args:
        target_bits: Jensen-Shannon divergence between the row before and after, in bits.
        full_weight: the largest weight, or the smallest if it is negative. It is the result for a row that moves by
            less than the target even at this weight.
        divergence: function from weights ``[rows, 1]`` to divergences in bits ``[rows]``.
        like: the scores, ``[rows, vocab]``, which give the number of rows and the device.

    Returns:
        ``[rows, 1]`` float32.

    Example:
        >>> import torch
        >>> weights_for_divergence(0.25, 1.0, lambda weights: weights[:, 0] ** 2, torch.zeros(1, 8))
        tensor([[0.5000]])
    """
    high = torch.full((len(like), 1), full_weight, dtype=torch.float32, device=like.device)
    low = torch.where(divergence(high)[:, None] <= target_bits, high, 0.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = divergence(middle)[:, None] <= target_bits
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low
