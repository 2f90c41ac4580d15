"""Divergences between distributions over the next token."""

from __future__ import annotations

import torch
from torch import Tensor


def js_bits(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two rows of logits, in bits: 0 (same) to 1 (disjoint).

    Args:
        first, second: logits or log-probabilities, ``[rows, vocab]``; -inf is impossible.
    """
    p, q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    halves = [torch.where(x > -torch.inf, x.exp() * (x - middle), 0.0).sum(-1) for x in (p, q)]
    return (0.5 * (halves[0] + halves[1]) / torch.log(torch.tensor(2.0))).clamp(0, 1)
