"""What the comparison with recomputation lets pass, and what it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from logitkit.registry.laws.agreement import assert_close


def law(small: float) -> Tensor:
    """Return the log-probabilities of a law of three tokens, one of them improbable."""
    return torch.tensor([0.5, 0.5 - small, small], dtype=torch.float64).log()


def test_the_rounding_of_a_small_probability_passes() -> None:
    """2e-8 of 1e-5 is 2e-3 nats: what fp32 leaves of a difference of two halves."""
    assert_close(law(1.002e-5), law(1e-5), "the law")


@pytest.mark.parametrize(("actual", "expected"), [(0.1002, 0.1), (1.02e-4, 1e-4), (1.2e-8, 1e-8)])
def test_a_difference_does_not_pass(actual: float, expected: float) -> None:
    """Neither 2e-3 nats of a probable token, nor 0.02 of one above rounding, nor 0.18 of one below."""
    with pytest.raises(AssertionError, match=r"the law is .* nats from recomputation, token 2: log-"):
        assert_close(law(actual), law(expected), "the law")


def test_a_difference_names_token_and_values() -> None:
    """Of two tokens the one that differs more is named, with both log-probabilities: ln(1/4) and ln(1/8)."""
    expected, actual = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.5, 0.125, 0.375]).log()
    with pytest.raises(AssertionError, match=r"token 1: log-probability expected -1\.38629, got -2\.07944$"):
        assert_close(actual, expected, "the law")
    masked = actual.index_fill(0, torch.tensor([2]), -torch.inf)
    with pytest.raises(AssertionError, match="other impossible tokens than recomputation, 1 with token 2"):
        assert_close(masked, expected, "the law")
