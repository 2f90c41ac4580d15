"""How certain a model is of its next token."""

from __future__ import annotations

import torch
from torch import Tensor


def self_certainty(logits: Tensor) -> Tensor:
    """Return how far each row is from the uniform distribution: ``-1/V sum_v log(V p(v))``, nats, float64 ``[rows]``.

    Source: arXiv:2502.18581. The value is 0 for a uniform row, and infinite where a token is impossible.

    Args:
        logits: ``[rows, vocab]``.

    Example:
        >>> uniform, sure = self_certainty(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).tolist()
        >>> round(abs(uniform), 6), round(sure, 3)
        (0.0, 0.434)
    """
    logp = logits.double().log_softmax(-1)
    return -(logp + torch.tensor(float(logp.shape[-1])).double().log()).mean(-1)
