"""The measured cost of a fused forward."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch

from logitkit.processors.engine.thin_matmul import ThinMatmul, is_faster

_SECONDS: WeakKeyDictionary[Any, dict[tuple[int, bool], float]] = WeakKeyDictionary()  # by model, rows and thin


def fused_cost(model: Any, rows: int, times: int) -> float:
    """Return the cost of a forward of ``times * rows`` rows, in forwards of ``rows`` rows, one token a row.

    Both are measured once for each model and number of rows. The larger forward runs as a fused forward does.
    """
    seconds = _SECONDS.setdefault(model, {})
    plain, fused = (rows, False), (rows * times, times > 1 and is_faster(model, rows * times))
    for size, thin in (plain, fused):
        if (size, thin) not in seconds:
            seconds[size, thin] = _forward_seconds(model, size, thin)
    return seconds[fused] / seconds[plain]


@torch.no_grad()
def _forward_seconds(model: Any, rows: int, thin: bool) -> float:
    """Return the seconds of one forward of one token a row, the shortest of three."""
    timings = []
    for _ in range(3):
        start = time.perf_counter()
        ids = torch.zeros((rows, 1), dtype=torch.long, device=model.device)
        with ThinMatmul() if thin else nullcontext():
            float(model(input_ids=ids, use_cache=False).logits[0, -1, 0])  # waits for the device
        timings.append(time.perf_counter() - start)
    return min(timings)
