"""CPU time of the steps of one `generate` call and of the forwards in them, and the clock of a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor

from logitkit.bench.speed import ForwardClock


class Stamps(LogitsProcessor):
    """Keeps the CPU time at each step.

    Attributes:
        times: seconds of CPU time of the process, at each step.
        inside: seconds of CPU time in forwards so far, at each step.
        clock: adds up the time in forwards.
        skipped: steps at the beginning that `step` leaves out, besides the one that reads the prompt.
    """

    def __init__(self, clock: ForwardClock | None = None, skipped: int = 0) -> None:
        self.times: list[float] = []
        self.inside: list[float] = []
        self.clock = clock
        self.skipped = skipped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        self.times.append(time.process_time())
        self.inside.append(self.clock.seconds if self.clock else 0.0)
        return scores

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self._mean(self.times)

    @property
    def forwards(self) -> float:
        """Seconds of the forwards of a step."""
        return self._mean(self.inside)

    def _mean(self, totals: list[float]) -> float:
        """Return the mean difference of neighbouring totals, without those of the skipped steps."""
        return (totals[-1] - totals[self.skipped]) / (len(totals) - 1 - self.skipped)


def clock_of(device: Any) -> Callable[[], float]:
    """Return the clock of a device: processor time on a CPU, which other processes disturb less, else real time."""
    return time.process_time if torch.device(device).type == "cpu" else time.perf_counter
