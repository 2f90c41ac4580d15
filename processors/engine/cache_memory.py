"""Memory that KV caches hold, counted on any device from the tensors themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


def cache_bytes(*owners: Any) -> int:
    """Return the bytes of all tensors that caches hold; tensors that share memory count once.

    Room that a cache has reserved counts as well. Keys and values that a cache has moved to the CPU count, too.

    Args:
        owners: caches of transformers, objects that hold such caches as attributes (second streams), and objects that
            state ``cache_bytes`` themselves (models over bytes, trees of tokens). Anything else holds no cache.

    Two heads, three tokens, four numbers of four bytes, keys and values:

    >>> import torch
    >>> from transformers import DynamicCache
    >>> cache, states = DynamicCache(), torch.zeros(1, 2, 3, 4)
    >>> _ = cache.update(states, states.clone(), 0)
    >>> cache_bytes(cache, cache), cache_bytes(None)
    (192, 0)
    """
    stated: list[int | None] = [getattr(owner, "cache_bytes", None) for owner in owners]
    unstated = (owner for owner, value in zip(owners, stated, strict=True) if value is None)
    storages = {}
    for tensor in _tensors(unstated):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr(), tensor.device] = storage.nbytes()
    return sum(value for value in stated if value is not None) + sum(storages.values())


def _tensors(owners: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors of all layers of the caches that are given, or that the given objects hold."""
    for owner in owners:
        if isinstance(owner, (Cache, CacheLayerMixin)):
            yield from _parts(vars(owner).values())
        else:
            held = vars(owner).values() if hasattr(owner, "__dict__") else ()
            yield from _tensors(value for value in held if isinstance(value, Cache))


def _parts(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the attributes of a cache, those in its lists and layers included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (Cache, CacheLayerMixin)):
            yield from _parts(vars(value).values())
        elif isinstance(value, (list, tuple)):
            yield from _parts(value)
        elif isinstance(value, Mapping):
            yield from _parts(value.values())
