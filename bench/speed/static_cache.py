"""Decoding variants under a static cache, with the forward that `generate` compiles for it."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import CompileConfig

from logitkit.bench.speed.decoding_variants import DecodingVariant

BACKEND = "inductor"


def static_form(variant: DecodingVariant, device: str) -> DecodingVariant:
    """Return a variant that decodes as another one does, under a static cache and with a compiled forward.

    Args:
        variant: the variant with the cache that `generate` uses by default.
        device: torch device of the model. `generate` compiles by itself on accelerators, and by request on a CPU.

    Examples:
        >>> from logitkit.bench.speed.decoding_variants import PLAIN
        >>> static = static_form(PLAIN, "cpu")
        >>> static.name, static.settings["cache_implementation"]
        ('plain generate, static', 'static')
    """
    settings: dict[str, Any] = {**variant.settings, "cache_implementation": "static"}
    if device.partition(":")[0] == "cpu":
        settings["compile_config"] = CompileConfig(backend=BACKEND)
        settings["compile_config"]._compile_all_devices = True  # else generate does not compile on a CPU
    return dataclasses.replace(variant, name=static_name(variant.name), settings=settings, compiled=True)


def static_name(name: str) -> str:
    """Return the name of a variant's static form.

    >>> static_name("uscd()")
    'uscd(), static'
    """
    return f"{name}, static"
