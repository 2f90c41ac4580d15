"""Chains as the sampling fields of other engines, and back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logitkit.errors import UnknownNameError
from logitkit.registry.engines.translation import Engine, Step

ENGINES = {"llama.cpp": "llama_cpp", "vllm": "vllm", "sglang": "sglang", "textgen": "textgen"}

__all__ = ["ENGINES", "engine", "read", "write"]


def engine(name: str) -> Engine:
    """Return an engine.

    Raises:
        UnknownNameError: an unknown engine.

    >>> engine("vllm").order
    ''
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    found: Engine = importlib.import_module(f"{__name__}.{ENGINES[name]}").ENGINE
    return found


def write(name: str, steps: Sequence[Step], describe: Callable[[str], Any]) -> dict[str, Any]:
    """Return the fields of an engine for the steps of a chain; see `Engine.write`.

    ``describe`` gives the Spec of a name.

    >>> from logitkit.registry import default_registry
    >>> write("vllm", [("temperature", {"temperature": 0.8})], default_registry().describe)["temperature"]
    0.8
    """
    return engine(name).write([(step, describe(step).hashed(parameters)) for step, parameters in steps])


def read(name: str, data: Mapping[str, Any], describe: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Return the steps of an engine's fields as chain data without defaults; see `Engine.read`.

    ``describe`` gives the Spec of a name.

    >>> from logitkit.registry import default_registry
    >>> read("vllm", {"temperature": 0.8}, default_registry().describe)
    [{'name': 'temperature', 'params': {'temperature': 0.8}}]
    """
    read = engine(name).read(data)
    fields = {step["name"]: describe(step["name"]).model.model_fields for step in read}
    return [
        {
            "name": step["name"],
            "params": {
                key: value for key, value in step["params"].items() if value != fields[step["name"]][key].default
            },
        }
        for step in read
    ]
