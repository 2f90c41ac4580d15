"""Divergences between distributions over the next token."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.engine.scores import with_infinite_masks

Measure = Literal["js"]
Unit = Literal["bits", "nats"]


def divergence(first: Tensor, second: Tensor, measure: Measure = "js", *, unit: Unit = "bits") -> Tensor:
    """Return the divergence between two distributions of each row.

    Args:
        first, second: logits or log-probabilities, ``[rows, vocab]``; -inf marks an impossible token.
        measure: ``js``, the Jensen-Shannon divergence (Lin 1991), symmetric.
        unit: ``bits`` or ``nats``; 1 bit is ``ln 2`` nats.

    Returns:
        fp32, ``[rows]``; 0 for equal distributions; at most 1 bit, for distributions without a common token.

    Example:
        >>> import torch
        >>> first = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
        >>> second = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]).log()
        >>> divergence(first, second, "js")
        tensor([0., 1.])
    """
    if measure != "js":
        raise ParameterError("divergence", "measure", "'js'", measure)
    if unit not in ("bits", "nats"):
        raise ParameterError("divergence", "unit", "'bits' or 'nats'", unit)
    return js_bits(first, second) * (math.log(2) if unit == "nats" else 1)


def js_bits(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of each row in bits, 0 (equal) to 1 (no common token).

    Args:
        first, second: logits or log-probabilities, ``[rows, vocab]``; -inf marks an impossible token.

    Example:
        >>> import torch
        >>> js_bits(torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log())
        tensor([1.])
    """
    p, q = (with_infinite_masks(logits).float().log_softmax(-1) for logits in (first, second))
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    halves = [torch.where(x > -torch.inf, x.exp() * (x - middle), 0.0).sum(-1) for x in (p, q)]
    return (0.5 * (halves[0] + halves[1]) / torch.log(torch.tensor(2.0))).clamp(0, 1)
