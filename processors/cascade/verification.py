"""Speculative verification: tokens drafted from one law, made to follow another exactly.

arXiv:2211.17192, appendix A.1, with the law pi of a cascade in the place of the large model's
(arXiv:2405.19261, section 4): a draft v ~ q is accepted with probability min(1, pi(v) / q(v)), else a
token is drawn from the residual max(0, pi - q), normalised. What comes out is distributed as pi.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.params import is_neutral

Residual = Literal["difference", "scaled"]


def acceptance(draft: Tensor, target: Tensor) -> Tensor:
    """The probability that a draft of each token is accepted, ``[rows, vocab]``: min(1, pi / q).

    Args:
        draft, target: log-probabilities of q and pi, ``[rows, vocab]``.
    """
    ratio = (target - draft).exp().clamp_max(1)
    return torch.where(draft == -torch.inf, torch.ones_like(ratio), ratio)  # such a token is never drafted


def residual(draft: Tensor, target: Tensor) -> Tensor:
    """The law of the token that replaces a rejected draft, as probabilities, ``[rows, vocab]``.

    Where draft and target are the same law nothing is ever rejected; the target is returned.
    """
    more = (target.exp() - draft.exp()).clamp_min(0)
    total = more.sum(-1, keepdim=True)
    return torch.where(total > 0, more / total.clamp_min(torch.finfo(total.dtype).tiny), target.exp())


def emitted(draft: Tensor, accept: Tensor, replacement: Tensor) -> Tensor:
    """The law of what comes out, as probabilities: q accept + (1 - sum q accept) replacement.

    Args:
        draft: log-probabilities of q, ``[rows, vocab]``.
        accept: probability of accepting each draft, same shape.
        replacement: probabilities of the token drawn after a rejection, same shape.
    """
    kept = draft.exp() * accept
    return kept + (1 - kept.sum(-1, keepdim=True)).clamp_min(0) * replacement


def acceptance_rate(draft: Tensor, target: Tensor) -> Tensor:
    """The probability that a draft is accepted, ``[rows]``: 1 - TV(pi, q)."""
    return torch.minimum(draft.exp(), target.exp()).sum(-1)


def lossy(draft: Tensor, target: Tensor, *, alpha: float, replace: Residual = "difference") -> Tensor:
    """Lossy speculative sampling, the baseline of arXiv:2405.19261: the law of what it emits, as probabilities.

    A draft is accepted with probability min(1, p / ((1 - alpha) q)). The literature has two residuals:
    ``difference`` max(0, p - q), as in that paper's notebook, and ``scaled`` max(0, p / (1 - alpha) - q).

    Args:
        draft, target: log-probabilities of q and p, ``[rows, vocab]``.
        alpha: 0 to 1; 0 is p, 1 is q.
        replace: which residual.
    """
    if not 0 <= alpha <= 1:
        raise ParameterError("lossy", "alpha", "a finite number >= 0 and <= 1", alpha)
    if is_neutral(alpha, 1):
        return draft.exp()
    raised = target - torch.log1p(torch.tensor(-alpha, dtype=target.dtype))
    return emitted(draft, acceptance(draft, raised), residual(draft, target if replace == "difference" else raised))
