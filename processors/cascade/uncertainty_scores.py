"""Uncertainty of a next-token distribution, as scores from 0 to 1 that are comparable across vocabulary sizes.

Logits and log-probabilities give the same scores. `logitkit.processors.contrast` has the opposite, confidence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import with_infinite_masks

EVIDENCE_TOKENS = 10  # number of most likely tokens that `aleatoric_uncertainty` uses, as in its source


def uncertainty(logits: Tensor) -> Tensor:
    """Return 1 - exp(-H) of each row, where H is the entropy in nats.

    Args:
        logits: logits or log-probabilities, ``[rows, vocab]``.

    Returns:
        ``[rows]``: 0 for a one-hot distribution, 1 - 1/n for a uniform one over n tokens.

    >>> uncertainty(torch.zeros(1, 4))
    tensor([0.7500])
    """
    logp = log_probabilities(logits)
    negative_entropy: Tensor = torch.special.xlogy(logp.exp(), logp.exp()).sum(-1)
    return 1 - negative_entropy.exp()


def margin_uncertainty(logits: Tensor) -> Tensor:
    """Return 1 - (p1 - p2) of each row, where p1 and p2 are the two largest probabilities.

    Args:
        logits: logits or log-probabilities, ``[rows, vocab]``.

    Returns:
        ``[rows]``: 0 for a one-hot distribution and a vocabulary of one, 1 where the two most likely tokens tie.

    >>> margin_uncertainty(torch.tensor([[0.5, 0.25, 0.25]]).log())
    tensor([0.7500])
    """
    p = logits.float().softmax(-1)
    best = torch.nn.functional.pad(p, (0, 1)).topk(2, dim=-1).values  # a vocabulary of one has no second token
    return 1 - (best[:, 0] - best[:, 1])


def aleatoric_uncertainty(logits: Tensor) -> Tensor:
    """Return the expected entropy under a Dirichlet distribution whose evidence is the logits, over ln 10.

    Source: logits as evidence, arXiv:2502.00290. With a = max(logit, 0) of the ten most likely tokens and A their
    sum, the expected entropy is - sum a/A (digamma(a + 1) - digamma(A + 1)) nats.
    Departure: logits are taken relative to the mean of the possible tokens, so that logits and log-probabilities
    give the same score. Thresholds published for raw logits do not apply.

    Args:
        logits: logits or log-probabilities, ``[rows, vocab]``; ``-inf`` marks impossible tokens.

    Returns:
        ``[rows]``, 0 to 1.

    >>> aleatoric_uncertainty(torch.tensor([[3.0, 1.0, -1.0, -3.0]]))
    tensor([0.1991])
    """
    logits = with_infinite_masks(logits).float()
    possible = logits > -torch.inf
    mean = logits.masked_fill(~possible, 0).sum(-1, keepdim=True) / possible.sum(-1, keepdim=True).clamp_min(1)
    a = (logits - mean).topk(min(EVIDENCE_TOKENS, logits.shape[-1]), dim=-1).values.clamp_min(0)
    total = a.sum(-1, keepdim=True)
    share = a / total.clamp_min(1e-9)  # without evidence the expected entropy is 0 for any shares
    expected = (share * (torch.digamma(total + 1) - torch.digamma(a + 1))).sum(-1)
    return (expected / math.log(EVIDENCE_TOKENS)).clamp(0, 1)
