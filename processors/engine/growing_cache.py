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
        total = count + key_states.shape[-2]
        self._key_room = _with_room(self._key_room, self.keys, total, key_states)
        self._value_room = _with_room(self._value_room, self.values, total, value_states)
        self._key_room[..., count:total, :] = key_states
        self._value_room[..., count:total, :] = value_states
        self.keys, self.values = self._key_room[..., :total, :], self._value_room[..., :total, :]
        return self.keys, self.values

    def reserve(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the memory of the keys and of the values, with room for ``length`` states at least.

        The layer must have states. Memory behind them is zero or holds states that were dropped.
        """
        assert self.keys is not None and self.values is not None
        self._key_room = _with_room(self._key_room, self.keys, length, self.keys)
        self._value_room = _with_room(self._value_room, self.values, length, self.values)
        self.show(self.get_seq_length())
        return self._key_room, self._value_room

    def is_in(self, room: Tensor) -> bool:
        """Return whether the keys are the beginning of a tensor, which can be written."""
        return _fits(room, self.keys)

    def show(self, total: int) -> None:
        """Make the first ``total`` states of the memory the states of the layer."""
        assert self._key_room is not None and self._value_room is not None
        self.keys, self.values = self._key_room[..., :total, :], self._value_room[..., :total, :]

    def select(self, index: Tensor) -> None:
        """Keep the states at some places, ``[kept]``, in the memory where they are."""
        assert self.keys is not None and self.values is not None
        keys, values = self.keys[..., index, :], self.values[..., index, :]
        rooms = self.reserve(self.get_seq_length())
        for room, states in zip(rooms, (keys, values), strict=True):
            room[..., : len(index), :] = states
        self.show(len(index))


def growing_cache() -> DynamicCache:
    """Return an empty cache whose layers are `GrowingLayer`.

    >>> growing_cache().get_seq_length()
    0
    """
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def _with_room(room: Tensor | None, states: Tensor | None, total: int, like: Tensor) -> Tensor:
    """Return a tensor that begins with some states and has room for ``total``: ``room`` itself where it has both.

    Args:
        room: the tensor of which ``states`` may be the beginning.
        states: the states so far.
        total: number of states for which there must be room.
        like: any states of the layer.
    """
    if room is None or room.shape[-2] < total or not _fits(room, states):
        # Zeros: what a mask hides counts with weight 0, and 0 times a number that is not finite would be nan.
        room = like.new_zeros(*like.shape[:-2], max(SMALLEST, 2 * total), like.shape[-1])
        if states is not None and states.numel():
            room[..., : states.shape[-2], :] = states
    return room


def _fits(room: Tensor, states: Tensor | None) -> bool:
    """Return whether states are the beginning of a tensor, and the tensor can be written."""
    return (
        states is not None
        and states.data_ptr() == room.data_ptr()
        # A tensor of the inference mode cannot be written outside of it.
        and (not room.is_inference() or torch.is_inference_mode_enabled())
    )
