"""CPU time of the steps of one `generate` call."""

from __future__ import annotations

import time

import torch
from transformers import LogitsProcessor


class Stamps(LogitsProcessor):
    """Keeps the CPU time at each step.

    Attributes:
        times: seconds of CPU time of the process, at each step.
        skipped: steps at the beginning that `step` leaves out, besides the one that reads the prompt.
    """

    def __init__(self, skipped: int = 0) -> None:
        self.times: list[float] = []
        self.skipped = skipped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        self.times.append(time.process_time())
        return scores

    @property
    def step(self) -> float:
        """Seconds of a step."""
        counted = self.times[self.skipped :]
        return (counted[-1] - counted[0]) / (len(counted) - 1)
