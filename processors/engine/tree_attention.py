"""Attention masks under which each token of a tree attends to its ancestors only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitkit.processors.engine.tree_node import Node


def ancestor_matrix(cached: Sequence[Node], fresh: Sequence[Node]) -> NDArray[np.bool_]:
    """Return which cached and new nodes are ancestors of each new node or the node itself.

    Args:
        cached: the nodes in the cache, by slot.
        fresh: the new nodes, parents before children.

    Returns:
        bool, ``[new nodes, cached nodes + new nodes]``.
    """
    before = len(cached)
    place = {id(node): number for number, node in enumerate(fresh)}
    ancestors = np.zeros((len(fresh), before + len(fresh)), dtype=bool)
    for number, node in enumerate(fresh):
        parent = node.parent
        if parent is not None and id(parent) in place:
            ancestors[number] = ancestors[place[id(parent)]]
        elif parent is not None:
            ancestors[number, [ancestor.slot for ancestor in parent.path()]] = True
        ancestors[number, before + number] = True
    return ancestors


def within_window(depths: NDArray[np.int64], fresh: int, window: int) -> NDArray[np.bool_]:
    """Return which nodes lie in the sliding window of each new node, ``[new nodes, all nodes]``.

    Args:
        depths: depths of the cached nodes, then of the new nodes.
        fresh: number of new nodes.
        window: number of tokens that a sliding layer attends to.
    """
    return depths[len(depths) - fresh :, None] - depths[None] < window


def additive_mask(visible: NDArray[np.bool_], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a mask to add to attention scores, ``[1, 1, queries, keys]``: 0 where visible, else the minimum."""
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(torch.from_numpy(~visible), torch.finfo(dtype).min)
    return mask[None, None].to(device)
