"""Comparison of scores, as the laws make it."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-4  # nats; with and without a KV cache the logits differ in the last bits of fp32


def assert_same_distribution(actual: Tensor, expected: Tensor, what: str) -> None:
    """Assert that two tensors of scores give the same softmax, up to `TOLERANCE`, and the same impossible tokens."""
    actual, expected = actual.float().log_softmax(-1), expected.float().log_softmax(-1)
    assert torch.equal(actual == -torch.inf, expected == -torch.inf), f"{what}: other tokens are impossible"
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text: f"{what}: {text}")


def assert_masked(before: Tensor, after: Tensor, what: str) -> None:
    """Assert that no score is NaN or +inf, that impossible tokens stay impossible, and that each row keeps a token."""
    assert not torch.isnan(after).any() and not torch.isposinf(after).any(), f"{what}: scores became NaN or +inf"
    lifted = (before == -torch.inf) & (after != -torch.inf)
    assert not bool(lifted.any()), f"{what}: an impossible token became possible"
    assert bool(torch.isfinite(after).any(-1).all()), f"{what}: a row has no possible token left"
