"""How unsure a model is of its next token: scores between 0 and 1 that do not depend on the vocabulary's size.

Logits and log-probabilities mean the same. For how sure a model is, see `contrast.confidence`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from logitkit.processors.engine.log_probabilities import log_probabilities

EVIDENCE = 10  # tokens that aleatoric uncertainty looks at


def uncertainty(logits: Tensor) -> Tensor:
    """1 - exp(-H) of each row, H its entropy in nats: 0 where sure, towards 1 with the perplexity, ``[rows]``."""
    logp = log_probabilities(logits)
    negative_entropy: Tensor = torch.special.xlogy(logp.exp(), logp.exp()).sum(-1)
    return 1 - negative_entropy.exp()


def margin(logits: Tensor) -> Tensor:
    """1 - (p1 - p2) of the two likeliest tokens, ``[rows]``: 0 where sure, 1 at a tie."""
    best = logits.float().softmax(-1).topk(2, dim=-1).values
    return 1 - (best[:, 0] - best[:, 1])


def aleatoric(logits: Tensor) -> Tensor:
    """Expected entropy of a Dirichlet law whose evidence is the logits (arXiv:2502.00290), over ln 10, ``[rows]``.

    With a = max(logit, 0) of the ten likeliest tokens and A their sum:
    - sum a/A (digamma(a + 1) - digamma(A + 1)). Departure: logits are taken relative to the mean of the possible
    tokens, since log-probabilities must mean the same; thresholds for raw logits do not carry over.
    """
    logits = logits.float()
    possible = logits > -torch.inf
    mean = logits.masked_fill(~possible, 0).sum(-1, keepdim=True) / possible.sum(-1, keepdim=True).clamp_min(1)
    a = (logits - mean).topk(min(EVIDENCE, logits.shape[-1]), dim=-1).values.clamp_min(0)
    total = a.sum(-1, keepdim=True)
    share = torch.where(total > 0, a / total.clamp_min(1e-9), 1 / a.shape[-1])
    expected = (share * (torch.digamma(total + 1) - torch.digamma(a + 1))).sum(-1)
    return (expected / math.log(EVIDENCE)).clamp(0, 1)
