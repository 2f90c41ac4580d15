"""Rewinding of caches: which tokens a cache shares with new rows, and whether it can drop its last tokens exactly."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from logitkit.errors import ModelError
from logitkit.processors.model_facts import text_config


def can_crop(cache: Any, removed: int) -> bool:
    """Return whether ``cache.crop(-removed)`` leaves exactly the cache of the shorter rows.

    A recurrent state cannot be rewound. A full sliding window can be rewound if the cache has recorded enough states
    from before the window. ``crop`` itself does not check this condition.
    """
    if removed == 0:
        return True
    if not cache.is_croppable or any(cache.is_linear):
        return False
    own = cache
    if isinstance(cache, EncoderDecoderCache):
        own = cache.self_attention_cache
        if not isinstance(own, DynamicCache):  # its ``crop`` refuses other caches
            return False
    layers: list[Any] = own.layers
    for layer in layers:
        window = getattr(layer, "sliding_window", None)
        if window is None or not layer.is_initialized or layer.get_seq_length() < window:
            continue
        left = layer.keys.shape[-2] - removed
        if not layer.record_past or left < min(window - 1, layer.get_seq_length() - removed):
            return False
    return True


def longest_cached_prefix(index: Tensor, tail: Tensor, cached_index: Tensor, cached: Tensor) -> tuple[int, Tensor]:
    """Return how many continuation tokens every row shares with a cached row, and that cached row, ``[rows]``.

    The number is -1 when the cache holds no row of the prompt of some row.

    Args:
        index: number of the prompt of each row, ``[rows]``.
        tail: continuations, ``[rows, tokens]``.
        cached_index: number of the prompt of each cached row, ``[cached]``.
        cached: cached continuations, ``[cached, tokens]``.
    """
    width = min(tail.shape[1], cached.shape[1])
    equal = tail[:, None, :width] == cached[None, :, :width]  # [rows, cached, width]
    prefix = equal.long().cumprod(-1).sum(-1)  # [rows, cached]
    prefix = prefix.masked_fill(index[:, None] != cached_index[None], -1)
    best, source = prefix.max(-1)
    return int(best.min()), source


def narrowest_window(model: Any, label: str) -> int | None:
    """Return the narrowest sliding window of the model, or None; `ModelError` for layers without keys and values."""
    layers: list[Any] = DynamicCache(config=text_config(model)).layers
    unsupported = {
        type(layer).__name__ for layer in layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)
    }
    if unsupported:
        raise ModelError(
            f"{label}: a model with another tokenizer must keep keys and values of each token, since rows are "
            f"rewound, got {', '.join(sorted(unsupported))}; choose a model with attention layers only"
        )
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    local = getattr(text_config(model), "window_size", None)  # GPT-Neo applies its window itself
    return min([*windows, *([local] if local else [])], default=None)
