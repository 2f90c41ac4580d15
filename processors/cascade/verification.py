"""Speculative verification: tokens drafted from one distribution are made to follow another exactly.

Source: speculative decoding, arXiv:2211.17192, appendix A.1. The target is the distribution ``pi`` of a cascade
(arXiv:2405.19261, section 4) instead of the large model's own. A token ``v`` drafted from ``q`` is accepted with
probability min(1, pi(v) / q(v)). A rejected token is replaced by a draw from the normalised residual
max(0, pi - q). The emitted token is then distributed as ``pi``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.params import is_neutral
from logitkit.processors.engine.scores import is_impossible

LossyResidual = Literal["difference", "scaled"]


def acceptance_probability(draft: Tensor, target: Tensor) -> Tensor:
    """Return the probability that each drafted token is accepted: min(1, target / draft).

    Args:
        draft, target: log-probabilities, ``[rows, vocab]``.

    Returns:
        Probabilities, ``[rows, vocab]``; 1 for tokens that are never drafted.

    >>> draft, target = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    >>> acceptance_probability(draft, target)
    tensor([[0.5000, 0.5000, 1.0000]])
    """
    ratio = (target - draft).exp().clamp_max(1)
    return torch.where(is_impossible(draft), torch.ones_like(ratio), ratio)  # target - draft may be nan there


def residual_distribution(draft: Tensor, target: Tensor) -> Tensor:
    """Return the distribution of the token that replaces a rejected draft: normalised max(0, target - draft).

    Args:
        draft, target: log-probabilities, ``[rows, vocab]``.

    Returns:
        Probabilities, ``[rows, vocab]``. Where draft and target are equal nothing is ever rejected, and the target
        itself is returned.

    >>> draft, target = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    >>> residual_distribution(draft, target)
    tensor([[0., 0., 1.]])
    """
    excess = (target.exp() - draft.exp()).clamp_min(0)
    total = excess.sum(-1, keepdim=True)
    return torch.where(total > 0, excess / total.clamp_min(torch.finfo(total.dtype).tiny), target.exp())


def emitted_distribution(draft: Tensor, accept: Tensor, replacement: Tensor) -> Tensor:
    """Return the distribution of the emitted token: q accept + (1 - sum q accept) replacement.

    Args:
        draft: log-probabilities of the drafted token, ``[rows, vocab]``.
        accept: probability of accepting each drafted token, ``[rows, vocab]``.
        replacement: probabilities of the token that replaces a rejected draft, ``[rows, vocab]``.

    Returns:
        Probabilities, ``[rows, vocab]``.

    >>> draft, target = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    >>> emitted_distribution(draft, acceptance_probability(draft, target), residual_distribution(draft, target))
    tensor([[0.2500, 0.2500, 0.5000]])
    """
    kept = draft.exp() * accept
    return kept + (1 - kept.sum(-1, keepdim=True)).clamp_min(0) * replacement


def acceptance_rate(draft: Tensor, target: Tensor) -> Tensor:
    """Return the probability that a draft is accepted: 1 minus the total variation distance.

    Args:
        draft, target: log-probabilities, ``[rows, vocab]``.

    Returns:
        Probabilities, ``[rows]``.

    >>> acceptance_rate(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor([0.7500])
    """
    return torch.minimum(draft, target).exp_().sum(-1)


def lossy_distribution(
    draft: Tensor, target: Tensor, *, alpha: float, residual: LossyResidual = "difference"
) -> Tensor:
    """Return the distribution emitted by lossy speculative sampling, the baseline of arXiv:2405.19261.

    A draft is accepted with probability min(1, p / ((1 - alpha) q)). Two residuals are in use: ``difference`` is
    max(0, p - q), as in the notebook of that paper; ``scaled`` is max(0, p / (1 - alpha) - q).

    Args:
        draft, target: log-probabilities of q and p, ``[rows, vocab]``.
        alpha: leniency, 0 to 1; 0 emits p, 1 emits q.
        residual: the distribution of replacements.

    Returns:
        Probabilities, ``[rows, vocab]``.

    Raises:
        ParameterError: ``alpha`` is outside its range.

    >>> draft, target = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    >>> lossy_distribution(draft, target, alpha=0.0)
    tensor([[0.2500, 0.7500]])
    """
    if not 0 <= alpha <= 1:
        raise ParameterError("lossy_distribution", "alpha", "a finite number >= 0 and <= 1", alpha)
    if is_neutral(alpha, 1):
        return draft.exp()
    scaled = target - torch.log1p(torch.tensor(-alpha, dtype=target.dtype))
    replacement = residual_distribution(draft, target if residual == "difference" else scaled)
    return emitted_distribution(draft, acceptance_probability(draft, scaled), replacement)
