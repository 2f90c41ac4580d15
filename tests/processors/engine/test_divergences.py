"""Divergences by hand, their units and their errors."""

from __future__ import annotations

import math

import pytest
import torch

from logitkit.errors import ParameterError
from logitkit.processors.engine import divergence, js_bits

FIRST = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).log()
SECOND = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]).log()


def test_worked_example() -> None:
    """Equal rows have 0 bits and disjoint rows 1 bit; sharing half of the mass gives half a bit."""
    torch.testing.assert_close(divergence(FIRST, SECOND), torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(js_bits(FIRST, SECOND), torch.tensor([0.0, 1.0, 0.5]))


def test_symmetry_and_the_scale_of_logits() -> None:
    """The divergence is symmetric, and adding a constant to a row of logits changes nothing."""
    first, second = torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(0)).unbind(0)
    torch.testing.assert_close(divergence(first, second), divergence(second + 3, first), rtol=0, atol=1e-6)


def test_nats() -> None:
    """One bit is ln 2 nats."""
    torch.testing.assert_close(
        divergence(FIRST, SECOND, "js", unit="nats"), torch.tensor([0.0, math.log(2), math.log(2) / 2])
    )


def test_unknown_measures_and_units_are_refused() -> None:
    """The errors name what is known."""
    with pytest.raises(ParameterError, match="divergence: measure must be 'js', got 'kl'"):
        divergence(FIRST, SECOND, "kl")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="divergence: unit must be 'bits' or 'nats', got 'bans'"):
        divergence(FIRST, SECOND, unit="bans")  # type: ignore[arg-type]
