"""Means over steps and rows of what processors measure; the sums stay on the device until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningMeans:
    """Means by processor and quantity.

    Example:
        >>> means = RunningMeans()
        >>> means.add("cascade", {"deferral": torch.tensor([0.0, 0.5]), "needed": torch.tensor([True, False])})
        >>> means.derive("cascade", "parameters", "needed", scale=10, offset=1)
        >>> means.values()
        {'cascade': {'deferral': 0.25, 'needed': 0.5, 'parameters': 6.0}}
    """

    def __init__(self) -> None:
        # Sums of quantities that are added together, ``[quantities]``, and the number of values of each.
        self._sums: dict[tuple[str, tuple[str, ...]], tuple[Tensor, int]] = {}
        self._derived: dict[tuple[str, str], tuple[str, float, float]] = {}

    def add(self, processor: str, values: Mapping[str, Tensor]) -> None:
        """Add the values of one step, ``[rows]`` for each quantity; quantities of one call are summed together."""
        parts, key = list(values.values()), (processor, tuple(values))
        total = (torch.stack(parts) if len(parts) > 1 else parts[0][None]).sum(-1, dtype=torch.float64)
        count, known = len(parts[0]), self._sums.get(key)
        self._sums[key] = (total, count) if known is None else (known[0] + total, known[1] + count)

    def derive(self, processor: str, quantity: str, source: str, *, scale: float, offset: float) -> None:
        """State that the mean of a quantity is ``scale`` times the mean of ``source``, plus ``offset``."""
        self._derived[processor, quantity] = source, scale, offset

    def values(self) -> dict[str, dict[str, float]]:
        """Return the means, as ``{processor: {quantity: mean}}``."""
        means: dict[str, dict[str, float]] = {}
        for (processor, quantities), (total, count) in self._sums.items():
            shares = (total / count).tolist()
            means.setdefault(processor, {}).update(zip(quantities, shares, strict=True))
        for (processor, quantity), (source, scale, offset) in self._derived.items():
            if source in means.get(processor, {}):
                means[processor][quantity] = scale * means[processor][source] + offset
        return means

    def copy(self) -> RunningMeans:
        """Return a copy to which later values are not added."""
        other = RunningMeans()
        other._sums, other._derived = dict(self._sums), dict(self._derived)
        return other

    def on_cpu(self) -> RunningMeans:
        """Return a copy whose sums are on the CPU."""
        other = self.copy()
        other._sums = {key: (total.cpu(), count) for key, (total, count) in self._sums.items()}
        return other
