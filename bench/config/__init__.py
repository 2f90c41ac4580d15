"""Configuration of a run: the run file, its checks, its models and its data.

`read` and `from_data` check everything that can be checked before a model is loaded, and report all mistakes at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from logitkit.bench.config.overrides import Overrides
from logitkit.bench.config.run import (
    ChainEntry,
    CostEntry,
    HypothesisEntry,
    ModelEntry,
    ResourceEntry,
    Run,
    TaskEntry,
    TunedEntry,
)

if TYPE_CHECKING:
    from logitkit.bench.config.example import example_run
    from logitkit.bench.config.preflight import overlong_samples
    from logitkit.bench.config.runfile import from_data, read

__all__ = [
    "ChainEntry",
    "CostEntry",
    "HypothesisEntry",
    "ModelEntry",
    "Overrides",
    "ResourceEntry",
    "Run",
    "TaskEntry",
    "TunedEntry",
    "example_run",
    "from_data",
    "overlong_samples",
    "read",
]

# The modules of these names are imported when a name is first used, since they need torch or are rarely used.
_LAZY = {"example_run": "example", "from_data": "runfile", "overlong_samples": "preflight", "read": "runfile"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
