"""The time inside a model's forward passes, without making the host wait for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class ForwardClock:
    """Adds up the time spent inside a model's forward passes, until removed.

    On CUDA the device's own events are read afterwards; elsewhere the host's clock, which may be another one.
    """

    def __init__(self, model: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._events = torch.device(model.device).type == "cuda"
        self._marks: list[tuple[Any, Any]] = []
        self._begun: Any = None
        self._hooks = [model.register_forward_pre_hook(self._start), model.register_forward_hook(self._stop)]

    @property
    def seconds(self) -> float:
        """Time so far; on CUDA this waits for the device."""
        if self._events:
            torch.cuda.synchronize()
            return float(sum(begun.elapsed_time(ended) for begun, ended in self._marks)) / 1000
        return float(sum(ended - begun for begun, ended in self._marks))

    @property
    def count(self) -> int:
        """Forward passes so far."""
        return len(self._marks)

    def _now(self) -> Any:
        if not self._events:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _start(self, *_: Any) -> None:
        self._begun = self._now()

    def _stop(self, *_: Any) -> None:
        self._marks.append((self._begun, self._now()))

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
