"""Token rows of unequal length as one tensor: padded on the left for a decoder, on the right for an encoder.

A decoder continues its rows at their right end. An encoder with absolute positions counts them from the left end of a
row, padding included, so only padding behind the text leaves the positions of the text as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Stack token rows of unequal length, padded on the left.

    Args:
        rows: token ids; a row may be empty.
        pad: id of the padding.

    Returns:
        Ids and mask, ``[rows, longest]`` each; the mask is 0 on padding.

    Example:
        >>> left_padded([[5], [6, 7]], pad=0)
        (tensor([[0, 5],
                [6, 7]]), tensor([[0, 1],
                [1, 1]]))
    """
    ids, mask = right_padded([row[::-1] for row in rows], pad)
    return ids.flip(-1), mask.flip(-1)


def right_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Stack token rows of unequal length, padded on the right.

    Args:
        rows: token ids; a row may be empty.
        pad: id of the padding.

    Returns:
        Ids and mask, ``[rows, longest]`` each; the mask is 0 on padding.

    Example:
        >>> right_padded([[5], [6, 7]], pad=0)
        (tensor([[5, 0],
                [6, 7]]), tensor([[1, 0],
                [1, 1]]))
    """
    width = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        if row:
            ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[number, : len(row)] = 1
    return ids, mask


def padded_for(rows: Sequence[Sequence[int]], pad: int, *, in_encoder: bool) -> tuple[Tensor, Tensor]:
    """Stack token rows, padded on the right for an encoder and on the left for a decoder.

    Args:
        rows: token ids; a row may be empty.
        pad: id of the padding.
        in_encoder: whether an encoder reads the rows.

    Returns:
        Ids and mask, ``[rows, longest]`` each; the mask is 0 on padding.

    Example:
        >>> padded_for([[5], [6, 7]], 0, in_encoder=True)[0].tolist()
        [[5, 0], [6, 7]]
    """
    return right_padded(rows, pad) if in_encoder else left_padded(rows, pad)
