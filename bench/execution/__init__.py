"""Execution of a run: units of work, engines that run them, and the store of their records."""

from __future__ import annotations

from logitkit.bench.execution.engine import ENGINES, Engine, carry_out, engine_named, missing
from logitkit.bench.execution.manifest import environment
from logitkit.bench.execution.sampling import GumbelNoise, continue_prompts, pinned_settings, seed_of
from logitkit.bench.execution.store import Store
from logitkit.bench.execution.unit import MEASURED_FIELDS, Unit, keys, plan, run_unit

__all__ = [
    "ENGINES",
    "MEASURED_FIELDS",
    "Engine",
    "GumbelNoise",
    "Store",
    "Unit",
    "carry_out",
    "continue_prompts",
    "engine_named",
    "environment",
    "keys",
    "missing",
    "pinned_settings",
    "plan",
    "run_unit",
    "seed_of",
]
