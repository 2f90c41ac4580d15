"""Long work in pieces: units, the engines that run them, and `carry_out`, which stores each result when it is complete.

The benchmark, ``label-divergence``, ``train-attribute``, ``membership`` and the studies run on it. A *job* is a
function that runs one unit. Its result depends on the unit alone, so units may run in any order and on any machine.
Importing this package imports neither torch nor Ray.
"""

from __future__ import annotations

from logitkit.execution.engine import ENGINES, Engine, carry_out, engine_named, local
from logitkit.execution.per_process import PerProcess, value_of

__all__ = ["ENGINES", "Engine", "PerProcess", "carry_out", "engine_named", "local", "value_of"]
