"""Rows of tokens of unlike lengths: what they share, and how they lie in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Ragged = Sequence[Sequence[int]]


def common_prefix(row: Sequence[int], cached: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    width = min(len(row), len(cached))
    if row[:width] == cached[:width]:
        return width
    return int((np.array(row[:width]) != np.array(cached[:width])).argmax())


def stacked(rows: Ragged, pad: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return rows as one array, ``[rows, longest]``, padded on the right."""
    together = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for number, row in enumerate(rows):
        together[number, : len(row)] = row
    return together


def unread_chunk(rows: Ragged, kept: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """Return the tokens to read and their positions in their rows, ``[rows, width]`` each, padded on the left."""
    chunk, positions = torch.zeros(2, len(rows), width, dtype=torch.long)
    for number, (row, count) in enumerate(zip(rows, kept, strict=True)):
        if unread := len(row) - count:
            chunk[number, width - unread :] = torch.tensor(row[count:])
            positions[number, width - unread :] = torch.arange(count, len(row))
    return chunk, positions


def covering_rows(rows: Ragged) -> tuple[list[list[int]], list[int]]:
    """Return as few rows as have every one of these rows as a prefix, and the shortest of the prefixes of each.

    Args:
        rows: tokens; they may repeat.

    Returns:
        The rows, longest first, and the length of the shortest given prefix of each.

    Example:
        >>> covering_rows([[1], [1, 2], [1, 2, 3], [1, 4]])
        ([[1, 2, 3], [1, 4]], [1, 2])
    """
    shortest: dict[tuple[int, ...], int] = {}
    for row in sorted({tuple(row): None for row in rows}, key=len, reverse=True):
        whole = next((other for other in shortest if other[: len(row)] == row), row)
        shortest[whole] = len(row)
    return [list(row) for row in shortest], list(shortest.values())


def values_by_prefix(rows: Ragged, shortest: Sequence[int], values: Tensor) -> dict[tuple[int, ...], Tensor]:
    """Return the value of each prefix of rows, by its tokens.

    Args:
        rows, shortest: as from `covering_rows`.
        values: at the last prefixes of each row, the whole row last, ``[rows, prefixes, ...]``.

    Example:
        >>> values = values_by_prefix([[1, 2]], [1], torch.tensor([[7, 8, 9]]))
        >>> {prefix: int(value) for prefix, value in values.items()}
        {(1,): 8, (1, 2): 9}
    """
    return {
        tuple(row[:end]): values[number, values.shape[1] - 1 - len(row) + end]
        for number, (row, start) in enumerate(zip(rows, shortest, strict=True))
        for end in range(start, len(row) + 1)
    }
