"""Speed and memory of decoding: variants side by side, costs of strategies, and profiles of single processors.

Timings of one table come from one process, in rounds that run every variant once, and are compared within a round.
"""

from __future__ import annotations

from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.cost import StrategyCost
from logitkit.bench.speed.decoding_variants import DecodingVariant, example_variant, select_variants, variants
from logitkit.bench.speed.measurement import VariantTiming, measure
from logitkit.bench.speed.memory import PeakMemory
from logitkit.bench.speed.profile import ProcessorCost, profile_processors
from logitkit.bench.speed.static_cache import static_form
from logitkit.bench.speed.syncs import SyncCount

__all__ = [
    "DecodingVariant",
    "ForwardClock",
    "PeakMemory",
    "ProcessorCost",
    "StrategyCost",
    "SyncCount",
    "VariantTiming",
    "example_variant",
    "measure",
    "profile_processors",
    "select_variants",
    "static_form",
    "variants",
]
