"""Parameters that a token activates on average when a large model runs at some steps only."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class ParameterCounts(NamedTuple):
    """Numbers of parameters of a small and a large model."""

    small: int
    large: int

    def activated(self, large_runs: Tensor) -> Tensor:
        """Return small + large where the large model runs, else small; float64 ``[rows]``.

        Args:
            large_runs: rows for which the large model runs, bool ``[rows]``.
        """
        return self.small + large_runs.double() * self.large


def parameter_counts(small: Any, large: Any) -> ParameterCounts | None:
    """Return the parameter counts of two models; None when a model has no ``num_parameters`` method."""
    if not all(hasattr(model, "num_parameters") for model in (small, large)):
        return None
    return ParameterCounts(int(small.num_parameters()), int(large.num_parameters()))
