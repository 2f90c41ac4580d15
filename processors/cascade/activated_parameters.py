"""Parameters that a token activates on average when a large model runs at some steps only."""

from __future__ import annotations

from typing import Any, NamedTuple

from logitkit.processors.engine.trace import Trace


class ParameterCounts(NamedTuple):
    """Numbers of parameters of a small and a large model."""

    small: int
    large: int

    def derive_activated(self, trace: Trace, processor: str, runs: str) -> None:
        """State the mean ``activated parameters`` of a processor: small, and large where the large model runs.

        Args:
            trace: the trace of the call.
            processor: name of the processor.
            runs: quantity whose mean is the share of rows for which the large model runs.
        """
        trace.derive(processor, "activated parameters", runs, scale=self.large, offset=self.small)


def parameter_counts(small: Any, large: Any) -> ParameterCounts | None:
    """Return the parameter counts of two models; None when a model has no ``num_parameters`` method."""
    if not all(hasattr(model, "num_parameters") for model in (small, large)):
        return None
    return ParameterCounts(int(small.num_parameters()), int(large.num_parameters()))
