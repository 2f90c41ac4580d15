"""Tokens that would repeat an n-gram of the continuation."""

from __future__ import annotations

import torch
from torch import Tensor


def repeating_tokens(ids: Tensor, *, order: int, continuation: int, width: int) -> Tensor:
    """Return the tokens that would complete an n-gram whose last token is already in the continuation.

    Args:
        ids: rows of tokens, ``[rows, length]``.
        order: length of the n-grams.
        continuation: index of the first token of the continuation.
        width: width of the scores.

    Returns:
        positions in the flattened scores ``[rows, width]``, one for each n-gram of the continuation, ``[rows, n]``;
        ``rows * width`` where the n-gram would not be repeated. Empty for order 1.

    Example:
        >>> import torch
        >>> repeating_tokens(torch.tensor([[1, 2, 3, 1, 2]]), order=3, continuation=0, width=5)
        tensor([[3, 5, 5]])
    """
    length = order - 1
    ids = ids[:, max(continuation - length, 0) :]
    if ids.shape[1] <= length or not length:
        return ids.new_zeros(len(ids), 0)
    windows = ids.unfold(1, length, 1)  # [rows, windows, length]
    repeats = (windows[:, :-1] == windows[:, -1:]).all(-1)
    tokens = ids[:, length:]
    places = tokens + torch.arange(len(ids), device=ids.device)[:, None] * width
    return torch.where(repeats & (tokens >= 0) & (tokens < width), places, len(ids) * width)
