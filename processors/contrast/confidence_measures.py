"""The confidence of a model in each row, as the gate of `uscd` measures it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from logitkit.processors.engine.gate import own_measure

Confidence = Literal["norm", "max", "entropy", "margin"]


def confidence(logits: Tensor, measure: Confidence = "norm") -> Tensor:
    """Return the model's confidence in each row, from 0 to 1, comparable across vocabulary sizes.

    The released code of USCD uses the standard deviation u of the probabilities, which shrinks as the
    vocabulary size V grows. It is related to ``norm`` by ``norm == sqrt(u**2 * (V - 1) + 1 / V)``. The released
    thresholds 0.005 and 0.0035 at V = 32000 correspond to 0.894 and 0.626.

    Args:
        logits: ``[rows, vocab]``.
        measure: ``norm``: the 2-norm of the probabilities. ``max``: the largest probability. ``margin``: the
            difference between the two largest. ``entropy``: 1 minus the entropy divided by ln(vocab).

    Returns:
        ``[rows]`` fp32; 1 under every measure for a vocabulary of one.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
        >>> confidence(logits), confidence(logits, "max")
        (tensor([0.6164]), tensor([0.5000]))
    """
    if measure != "entropy":
        return own_measure(logits, measure)
    p = logits.float().softmax(-1)
    negative_entropy: Tensor = torch.special.xlogy(p, p).sum(-1)
    return (1 + negative_entropy / math.log(max(2, p.shape[-1]))).clamp(0, 1)
