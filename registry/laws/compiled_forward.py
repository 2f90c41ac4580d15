"""A model that `generate` runs with a static cache and a compiled forward."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from transformers import CompileConfig

NOTHING_COMPILED = "no compiled frames"  # part of torch's message


def compiled_settings() -> dict[str, Any]:
    """Return settings of `generate` for a static cache and one graph, traced by dynamo and not compiled to C++.

    >>> compiled_settings()["cache_implementation"]
    'static'
    """
    config: Any = CompileConfig(backend="eager", fullgraph=True, mode=cast(Any, None))
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config}


@functools.cache
def copy_to_compile(model: Any) -> Any:
    """Return a copy that keeps its compiled forward, so that one trace serves all processors."""
    return copy.deepcopy(model)


def with_room_for_graphs(run: Callable[[], Any]) -> None:
    """Call a function that compiles, however many graphs the process has compiled.

    torch counts the graphs of all models, and gives up on code that has too many, until it is reset.
    """
    with torch._dynamo.config.patch(recompile_limit=1024, accumulated_recompile_limit=1024):
        try:
            run()
        except Exception as error:  # also a ModelError, which tells of the forward of a second stream
            if NOTHING_COMPILED not in str(error):
                raise
            torch._dynamo.reset()
            run()
