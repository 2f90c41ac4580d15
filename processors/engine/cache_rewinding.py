"""Rewinding of caches: whether a cache of transformers can drop its last tokens exactly."""

from __future__ import annotations

from typing import Any

from transformers import EncoderDecoderCache


def can_crop(cache: Any, removed: int) -> bool:
    """Return whether ``cache.crop(-removed)`` leaves exactly the cache of the shorter rows.

    A recurrent state cannot be rewound. A full sliding window can be rewound if the cache has recorded enough states
    from before the window. ``crop`` itself does not check this condition.
    """
    if removed == 0:
        return True
    if not cache.is_croppable or any(cache.is_linear):
        return False
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    layers: list[Any] = own.layers
    for layer in layers:
        window = getattr(layer, "sliding_window", None)
        if window is None or not layer.is_initialized or layer.get_seq_length() < window:
            continue
        left = layer.keys.shape[-2] - removed
        if not layer.record_past or left < min(window - 1, layer.get_seq_length() - removed):
            return False
    return True
