"""Tokens that ride behind the new token of each row in a forward, and leave the KV cache after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _Riding(threading.local):
    """Tokens that ride in the running forward of a thread."""

    count: int = 0


_RIDING = _Riding()


@contextmanager
def tokens_ride(count: int) -> Iterator[None]:
    """State, for the forwards of this thread inside this block, how many tokens ride behind each row."""
    before, _RIDING.count = _RIDING.count, count
    try:
        yield
    finally:
        _RIDING.count = before


def last_state(states: Tensor) -> Tensor:
    """Return the states at the last token of each row, ``[rows, width]``, from states ``[rows, tokens, width]``.

    >>> import torch
    >>> states = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> with tokens_ride(2):
    ...     last_state(states)
    tensor([[1.]])
    """
    return states[:, -1 - _RIDING.count]


def can_drop_again(cache: Any) -> bool:
    """Return whether the last tokens can be removed from a cache without a loss: a window forgets what they push out.

    >>> can_drop_again(DynamicCache())
    True
    """
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)
