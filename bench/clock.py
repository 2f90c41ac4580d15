"""The time inside a model's forward passes."""

from __future__ import annotations

import time
from typing import Any


class ForwardClock:
    """Adds up the time spent inside a model's forward passes, until removed."""

    def __init__(self, model: Any) -> None:
        self.seconds, self._begun = 0.0, 0.0
        self._hooks = [model.register_forward_pre_hook(self._start), model.register_forward_hook(self._stop)]

    def _start(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._begun

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
