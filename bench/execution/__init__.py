"""Execution of a run: its units of work, which engines of `logitkit.execution` run, and the store of their records."""

from __future__ import annotations

from logitkit.bench.execution.engine import carry_out, missing
from logitkit.bench.execution.manifest import environment
from logitkit.bench.execution.sampling import GumbelNoise, continue_prompts, pinned_settings, seed_of
from logitkit.bench.execution.store import Store
from logitkit.bench.execution.unit import MEASURED_FIELDS, Unit, keys, plan, run_unit

__all__ = [
    "MEASURED_FIELDS",
    "GumbelNoise",
    "Store",
    "Unit",
    "carry_out",
    "continue_prompts",
    "environment",
    "keys",
    "missing",
    "pinned_settings",
    "plan",
    "run_unit",
    "seed_of",
]
