"""Positions and attention masks of the rows of a reader, computed for several steps at once.

A step of decoding adds one token to each row. What it needs is a slice of what was computed before, which launches no
kernel on an accelerator.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 256  # number of steps that are computed at once


class PositionsAhead:
    """Positions and masks of continuations behind own prompts.

    Args:
        lengths: number of tokens of each own prompt, ``[prompts]``.
        mask: 1 for a token of an own prompt, 0 for padding on the left, ``[prompts, width]``.

    Example:
        >>> ahead = PositionsAhead(torch.tensor([2, 1]), torch.tensor([[1, 1], [0, 1]]))
        >>> rows = torch.tensor([1, 0])  # the own prompt of each row
        >>> ahead.positions(rows, 3, 1), ahead.masks(rows, 1)
        (tensor([[4],
                [5]]), tensor([[0, 1, 1],
                [1, 1, 1]]))
    """

    def __init__(self, lengths: Tensor, mask: Tensor) -> None:
        self._lengths, self._mask = lengths, mask
        self._rows: Tensor | None = None  # those of the positions and masks below, found by tensor identity
        self._positions = self._masks = mask

    def positions(self, rows: Tensor, start: int, count: int) -> Tensor:
        """Return positions behind the own prompts, ``[rows, count]``.

        Args:
            rows: number of the own prompt of each row, ``[rows]``.
            start: number of tokens between an own prompt and the first position.
            count: number of positions.
        """
        self._compute(rows, start + count)
        found = self._positions[start : start + count]
        return found.view(-1, 1) if count == 1 else found.T.contiguous()

    def masks(self, rows: Tensor, count: int) -> Tensor:
        """Return the masks of own prompts with ``count`` tokens behind them, ``[rows, width + count]``."""
        self._compute(rows, count)
        return self._masks[:, : self._mask.shape[1] + count]

    def _compute(self, rows: Tensor, count: int) -> None:
        """Compute for these rows, and at least so many tokens behind the own prompts."""
        if rows is self._rows and count <= len(self._positions):
            return
        steps = torch.arange(count + STEPS, device=self._lengths.device)
        self._rows, self._positions = rows, self._lengths[rows] + steps[:, None]  # [steps, rows]
        self._masks = torch.nn.functional.pad(self._mask[rows], (0, len(steps)), value=1)
