"""The differences between the supported versions of transformers; every other module asks here.

Up to 5.23 a forward takes and returns its KV cache as ``past_key_values``. From 5.24 on the name is ``cache``; the old
name raises a FutureWarning there, and 5.40 removes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import GenerationMixin

# A user may pass either name to `generate` from transformers 5.24 on.
CACHE_NAMES = ("cache", "past_key_values")
CACHE = (
    "cache"
    if "cache" in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    else "past_key_values"
)
"""Name of the KV cache among the arguments of a forward, in its output, and among the settings of `generate`."""


def takes_cache(model: Any) -> bool:
    """Return whether the forward of a model names the cache among its parameters, or takes any keyword.

    Args:
        model: a model of transformers, or an object with its ``forward``.

    >>> from logitkit.registry.laws import tiny_model
    >>> takes_cache(tiny_model())
    True
    """
    parameters = inspect.signature(model.forward).parameters
    return CACHE in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def with_cache(cache: Any) -> dict[str, Any]:
    """Return the keyword arguments that make a forward, or `generate`, use a cache.

    >>> with_cache("a cache") == {CACHE: "a cache", "use_cache": True}
    True
    """
    return {CACHE: cache, "use_cache": True}


def cache_of(mapping: Mapping[str, Any]) -> Any:
    """Return the cache among the keyword arguments or in the output of a forward; None where there is none.

    Args:
        mapping: keyword arguments, or a `ModelOutput`.

    >>> cache_of({CACHE: "a cache"}), cache_of({})
    ('a cache', None)
    """
    return mapping.get(CACHE)
