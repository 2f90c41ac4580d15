"""Time inside a model's forward passes, measured without making the host wait for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class ForwardClock:
    """Adds up the time inside a model's forward passes until `remove` is called.

    On CUDA the events of the device give the time and are read afterwards. On other devices the host clock is used.

    Args:
        model: a module of torch with an attribute ``device``.
        clock: clock of the host in seconds; not used on CUDA.

    Examples:
        >>> from logitkit.registry.laws import tiny_model
        >>> model = tiny_model()
        >>> clock = ForwardClock(model)
        >>> _ = model(input_ids=torch.tensor([[1, 2]]))
        >>> clock.count, clock.seconds > 0
        (1, True)
        >>> clock.remove()
    """

    def __init__(self, model: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._events = torch.device(model.device).type == "cuda"
        self._marks: list[tuple[Any, Any]] = []
        self._begun: Any = None
        self._hooks = [model.register_forward_pre_hook(self._start), model.register_forward_hook(self._stop)]

    @property
    def seconds(self) -> float:
        """Time so far in seconds; on CUDA, reading it waits for the device."""
        if self._events:
            torch.cuda.synchronize()
            return float(sum(begun.elapsed_time(ended) for begun, ended in self._marks)) / 1000
        return float(sum(ended - begun for begun, ended in self._marks))

    @property
    def count(self) -> int:
        """Number of forward passes so far."""
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
        """Remove the hooks from the model."""
        for hook in self._hooks:
            hook.remove()
