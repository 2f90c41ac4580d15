"""The settings under which `generate` runs with a static cache and a compiled forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers import StaticCache
from transformers.generation.configuration_utils import ALL_STATIC_CACHE_IMPLEMENTATIONS

from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import CACHE_NAMES

LONGEST_CACHE = "_previous_max_cache_length"  # attribute in which `generate` keeps this length on a model
DEFAULT_NEW_TOKENS = 20  # where nothing limits the length, as in `generate`


class StaticSettings(NamedTuple):
    """What a second model needs to know of a `generate` with a static cache.

    Attributes:
        new_tokens: number of tokens that `generate` writes at most.
        least_length: smallest length of a static cache in tokens, as ``max_cache_len`` states it.
        compile_config: settings of the compiler; None: those of each model.
    """

    new_tokens: int
    least_length: int
    compile_config: Any

    @classmethod
    def of(cls, value: Callable[[str], Any], settings: Mapping[str, Any], width: int) -> StaticSettings | None:
        """Return the settings of a `generate`; None: it compiles nothing, or moves its cache off the device.

        Args:
            value: returns a setting by name, with the defaults of the model.
            settings: keyword arguments of ``model.generate``.
            width: length of the prompts in tokens.

        >>> told = {"cache_implementation": "static", "max_new_tokens": 5}
        >>> StaticSettings.of(told.get, told, 8)
        StaticSettings(new_tokens=5, least_length=0, compile_config=None)
        >>> StaticSettings.of({}.get, {}, 8) is None
        True
        """
        cache = next((settings[name] for name in CACHE_NAMES if settings.get(name) is not None), None)
        if cache is None:
            name = value("cache_implementation")
            static = name in ALL_STATIC_CACHE_IMPLEMENTATIONS and "offloaded" not in name
        else:
            static = isinstance(cache, StaticCache) and not cache.offloading
        if not static or value("disable_compile") or value("use_cache") is False:
            return None
        new, longest = value("max_new_tokens"), value("max_length")
        if new is None:
            new = longest - width if longest else DEFAULT_NEW_TOKENS
        return cls(max(int(new), 1), int(value("max_cache_len") or 0), value("compile_config"))

    def compiles(self, model: Any) -> bool:
        """Return whether `generate` would compile the forward of this model with these settings.

        Args:
            model: a model of transformers.

        >>> from logitkit.registry.laws import tiny_model
        >>> StaticSettings(5, 0, None).compiles(tiny_model())  # a CPU compiles by request only
        False
        """
        everywhere = getattr(self.compile_config, "_compile_all_devices", None)
        quantizer = getattr(model, "hf_quantizer", None)
        return (
            (model.device.type in ("cuda", "xpu", "neuron", "tpu") or bool(everywhere))
            and (quantizer is None or bool(quantizer.is_compileable))
            and not {"cpu", "disk"} & {str(device) for device in getattr(model, "hf_device_map", {}).values()}
        )


def long_enough(cache: Any, extra: int, model: Any) -> Any:
    """Return a static cache that holds ``extra`` tokens more, as long as the model's longest one; else the same.

    `generate` keeps the length of the longest static cache of a model, so that a compiled forward fits later calls.
    """
    if not isinstance(cache, StaticCache):
        return cache
    given, longest = cache.get_max_length(), vars(model).get(LONGEST_CACHE, 0)
    length = vars(model)[LONGEST_CACHE] = max(given + extra, longest)
    return cache if length == given else StaticCache(text_config(model), length, offloading=cache.offloading)
