"""Formulas of n-gram style injection, as pure functions over tensors; all evidence is in nats.

Ahmed, arXiv:2601.16224, section 2.2, adds ``weight * sum_n w_n log P_n(token | context)`` to the logits of the tokens
that the table contains after the context, and nothing to the other logits. Because log P is never positive, that rule
lowers exactly the tokens that it is meant to raise. Four rules are available:

- ``literal``, `literal_evidence`: the published rule, for reproduction.
- ``lift``, `lift_evidence`: the published sum over the whole vocabulary, shifted so that an unseen token has none.
- ``pmi``, `ratio_evidence`: positive pointwise mutual information with a background table.
- ``mixture``, `mixed_log_probabilities`: a linear mixture of probabilities.

Evidence changes a row by exponential tilting: every probability is multiplied by ``exp(weight * evidence)``, and the
row is normalised by `normalizer`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

EvidenceRule = Literal["lift", "literal", "pmi"]
StyleRule = Literal["lift", "literal", "pmi", "mixture"]


def default_order_weights(orders: int) -> list[float]:
    """Return weights of the orders in the proportion 1 : 3 : 6 : 10 : 15, with sum 1.

    For three orders these are the weights of arXiv:2601.16224: 0.1, 0.3 and 0.6.

    Args:
        orders: the longest n-gram.

    Example:
        >>> default_order_weights(3)
        [0.1, 0.3, 0.6]
    """
    parts = [order * (order + 1) / 2 for order in range(1, orders + 1)]
    return [part / sum(parts) for part in parts]


def lift_evidence(counts: Tensor, *, k: float) -> Tensor:
    """Return the evidence ``log((count + k) / k)``, which is never negative.

    The evidence is the difference between the add-k log-probabilities of the token and of an unseen token after the
    same context. The number of occurrences of the context cancels in this difference.

    Args:
        counts: occurrences of n-grams, any shape.
        k: pseudo-count, above 0.

    Example:
        >>> import torch
        >>> lift_evidence(torch.tensor([0, 1, 3]), k=1.0).exp()
        tensor([1., 2., 4.])
    """
    return (counts / k).log1p_()


def ratio_evidence(probability: Tensor, reference: Tensor) -> Tensor:
    """Return the evidence ``max(log(probability / reference), 0)`` as float32.

    Signed evidence would again lower n-grams of the table below tokens that the table does not contain.

    Args:
        probability: probabilities under the table, any shape.
        reference: probabilities of the same tokens under a reference, same shape, above 0.

    Example:
        >>> import torch
        >>> ratio_evidence(torch.tensor([0.5, 0.1]), torch.tensor([0.25, 0.2])).exp()
        tensor([2., 1.])
    """
    return (probability / reference).log().clamp(min=0).float()


def literal_evidence(probability: Tensor, *, floor: float) -> Tensor:
    """Return the evidence ``log P`` of the published rule as float32, which is never positive.

    Args:
        probability: probabilities of n-grams, any shape.
        floor: the value that replaces smaller probabilities, above 0.

    Example:
        >>> import torch
        >>> literal_evidence(torch.tensor([1.0, 0.0]), floor=0.5)
        tensor([ 0.0000, -0.6931])
    """
    return probability.clamp(min=floor).log().float()


def mixed_log_probabilities(logp: Tensor, logq: Tensor, weight: Tensor) -> Tensor:
    """Return ``log((1 - weight) p + weight q)``.

    Args:
        logp: log-probabilities of the model, ``[rows, vocab]``.
        logq: log-probabilities of the table, same shape.
        weight: 0 to 1, ``[]`` or ``[rows, 1]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
        >>> mixed_log_probabilities(p.log(), q.log(), torch.tensor(0.5)).exp()
        tensor([[0.7500, 0.2500]])
    """
    return torch.logaddexp(torch.log1p(-weight) + logp, weight.log() + logq)


def normalizer(before: Tensor, after: Tensor) -> Tensor:
    """Return the shift of scores that restores the probability mass of each row.

    Args:
        before: mass of the moved tokens before the move, ``[rows]``.
        after: their mass after the move, ``[rows]``.

    Returns:
        ``log(before / after)``, ``[rows, 1]``; 0 where either mass is 0.

    Example:
        >>> import torch
        >>> normalizer(torch.tensor([0.8]), torch.tensor([1.6])).exp()
        tensor([[0.5000]])
    """
    shift = (before / after).log()
    return shift.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)[:, None]


def js_bits_per_mass(ratio: Tensor) -> Tensor:
    """Return a token's part of the Jensen-Shannon divergence in bits, per unit of its probability before the move.

    Args:
        ratio: probability after the move divided by the probability before, any shape.

    Example:
        >>> import torch
        >>> js_bits_per_mass(torch.tensor([1.0, 0.0]))
        tensor([0.0000, 0.5000])
    """
    log_sum = (1 + ratio).log2()
    return 0.5 * (1 - log_sum + torch.xlogy(ratio, ratio) / math.log(2) + ratio * (1 - log_sum))
