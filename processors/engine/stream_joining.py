"""Caches of second streams, put below the rows of `generate` while it runs.

Streams whose logits may never be needed are read in forwards of their own at first. Once they are needed often, their
cached rows join those of `generate`, so that all later forwards compute both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def can_grow(cache: Any) -> bool:
    """Return whether rows of other caches can be put below those of a cache: every layer keeps every token.

    >>> from logitkit.registry.laws import tiny_model
    >>> can_grow(DynamicCache(config=tiny_model().config)), can_grow(None)
    (True, False)
    """
    if type(cache) is not DynamicCache or cache.offloading:
        return False
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def join_below(cache: Any, others: Sequence[Any], length: int) -> None:
    """Put the rows of other caches below those of a cache, padded on the left to one length.

    Each layer of the other caches is dropped as soon as it is copied.

    Args:
        cache: a cache for which `can_grow` holds; it is changed in place.
        others: caches of the same model, for which `can_grow` holds.
        length: tokens of a row of the joined cache.

    >>> caches = [DynamicCache(), DynamicCache()]
    >>> for tokens, one in enumerate(caches, start=1):
    ...     _ = one.update(torch.ones(1, 2, tokens, 4), torch.ones(1, 2, tokens, 4), 0)
    >>> join_below(*caches[:1], caches[1:], 2)
    >>> caches[0].layers[0].keys[:, 0, :, 0].tolist()
    [[0.0, 1.0], [1.0, 1.0]]
    """
    for layers in zip(*(one.layers for one in (cache, *others)), strict=True):
        parts: list[Any] = list(layers)
        for name in ("keys", "values"):
            states = [getattr(part, name) for part in parts]
            joined = torch.cat([pad(one, (0, 0, length - one.shape[-2], 0)) for one in states])
            for part in parts:
                setattr(part, name, None)
            setattr(parts[0], name, joined)
