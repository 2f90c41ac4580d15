"""A KV cache that grows in place: a new token does not copy the keys and values of all earlier tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SMALLEST = 64  # tokens for which a layer has room at first


class GrowingLayer(DynamicLayer):
    """A cache layer whose ``keys`` and ``values`` are parts of larger tensors, which double when they are full.

    >>> layer = GrowingLayer()
    >>> for start in range(0, 200, 40):
    ...     states = torch.arange(start, start + 40).float().view(1, 1, 40, 1)
    ...     keys, values = layer.update(states, states)
    >>> bool((keys.flatten() == torch.arange(200)).all()), layer.get_seq_length()
    (True, 200)
    """

    _key_room: Tensor | None = None
    _value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append states, ``[batch, heads, new, width]``, and return all states."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = self.get_seq_length()
        self._key_room = _with_room(self._key_room, self.keys, count, key_states)
        self._value_room = _with_room(self._value_room, self.values, count, value_states)
        total = count + key_states.shape[-2]
        self.keys, self.values = self._key_room[..., :total, :], self._value_room[..., :total, :]
        return self.keys, self.values


def growing_cache() -> DynamicCache:
    """Return an empty cache whose layers are `GrowingLayer`.

    >>> growing_cache().get_seq_length()
    0
    """
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def _with_room(room: Tensor | None, states: Tensor | None, count: int, new: Tensor) -> Tensor:
    """Return a tensor that begins with ``count`` states and the new ones, and has room for more.

    Args:
        room: the tensor of which ``states`` may be the beginning.
        states: the states so far.
        count: their number.
        new: states to append.
    """
    total = count + new.shape[-2]
    fits = (
        room is not None
        and states is not None
        and states.data_ptr() == room.data_ptr()
        and room.shape[-2] >= total
        # A tensor of the inference mode cannot be written outside of it.
        and (not room.is_inference() or torch.is_inference_mode_enabled())
    )
    if room is None or not fits:
        room = new.new_empty(*new.shape[:-2], max(SMALLEST, 2 * total), new.shape[-1])
        if count and states is not None:
            room[..., :count, :] = states
    room[..., count:total, :] = new
    return room
