"""Divergences between two distributions over the next token, in nats.

The family and its members: Csiszar (1967) for f-divergences, Lin (1991) for Jensen-Shannon, Renyi (1961). The choice
among them matters for language models: f-DPG, arXiv:2302.08215, and f-DPO, arXiv:2309.16240, tune under divergences
other than KL; arXiv:2509.07430 finds that reverse KL narrows what a model can say, and that forward KL and
Jensen-Shannon keep it; sequence-level distillation under f-divergences is arXiv:2307.15190.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.engine.scores import with_infinite_masks

Divergence = Literal["kl", "reverse_kl", "js", "jeffreys", "renyi", "alpha", "tv", "hellinger", "chi2"]
LIMIT = 1e-6  # closer to 1 (and, for alpha, to 0), an order counts as the limit, which is a KL divergence


def divergence(logp: Tensor, logq: Tensor, kind: Divergence = "js", alpha: float = 0.5) -> Tensor:
    """Return the divergence of p from q in each row.

    | kind | value | range |
    |---|---|---|
    | ``kl`` | sum p log(p / q) | 0 to inf |
    | ``reverse_kl`` | sum q log(q / p) | 0 to inf |
    | ``js`` | alpha KL(p, m) + (1 - alpha) KL(q, m) with m = alpha p + (1 - alpha) q | 0 to ln 2 |
    | ``jeffreys`` | ``kl`` + ``reverse_kl`` | 0 to inf |
    | ``renyi`` | log(sum p^alpha q^(1 - alpha)) / (alpha - 1) | 0 to inf |
    | ``alpha`` | (sum p^alpha q^(1 - alpha) - 1) / (alpha (alpha - 1)) | 0 to inf |
    | ``tv`` | sum abs(p - q) / 2 | 0 to 1 |
    | ``hellinger`` | sqrt(1 - sum sqrt(p q)) | 0 to 1 |
    | ``chi2`` | sum (p - q)^2 / q | 0 to inf |

    A token that is impossible under both counts 0. Renyi divergences have their limits: order 1 is ``kl``, order 0 is
    minus the logarithm of the mass of q where p is possible, order inf is the largest log(p / q). The divergences of
    ``alpha`` have the limits ``kl`` at 1 and ``reverse_kl`` at 0.

    Args:
        logp, logq: logits or log-probabilities, ``[rows, vocab]``; -inf marks an impossible token.
        kind: see the table.
        alpha: for ``js`` the weight of p, above 0 and below 1; for ``renyi`` the order, >= 0 or inf; for ``alpha``
            the order, any finite number. Other kinds ignore it.

    Returns:
        Nats for ``kl``, ``reverse_kl``, ``js``, ``jeffreys`` and ``renyi``; the others have no unit. ``[rows]``, fp32,
        or fp64 where both arguments are fp64. Computed in fp64, without a host read; inf where q lacks what p has.

    Raises:
        ParameterError: an unknown kind, or an alpha outside the range of the kind.

    Example:
        >>> import torch
        >>> first = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
        >>> second = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]).log()
        >>> divergence(first, second), divergence(first, second, "tv")
        (tensor([0.0000, 0.6931]), tensor([0., 1.]))
    """
    if kind not in KINDS:
        raise ParameterError("divergence", "kind", f"one of {', '.join(map(repr, get_args(Divergence)))}", kind)
    refuse_wrong_alpha("divergence", kind, alpha)
    p, q = (with_infinite_masks(logits).double().log_softmax(-1) for logits in (logp, logq))
    both = logp.dtype == logq.dtype == torch.float64
    return KINDS[kind](p, q, alpha).to(torch.float64 if both else torch.float32)


def refuse_wrong_alpha(owner: str, kind: str, alpha: float) -> None:
    """Refuse an alpha outside the range of a kind of divergence.

    Raises:
        ParameterError: names the owner, the rule and the value.

    Example:
        >>> refuse_wrong_alpha("divergence", "js", 1.0)
        Traceback (most recent call last):
        logitkit.errors.ParameterError: divergence: alpha must be a weight > 0 and < 1 for js, got 1.0
    """
    rules: dict[str, tuple[str, bool]] = {
        "js": ("a weight > 0 and < 1 for js", 0 < alpha < 1),
        "renyi": ("an order >= 0 for renyi", alpha >= 0),
        "alpha": ("a finite order for alpha", math.isfinite(alpha)),
    }
    rule, holds = rules.get(kind, ("", True))
    if not holds:
        raise ParameterError(owner, "alpha", rule, alpha)


def js_bits(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of each row in bits, 0 (equal) to 1 (no common token).

    Args:
        first, second: logits or log-probabilities, ``[rows, vocab]``; -inf marks an impossible token.

    Example:
        >>> import torch
        >>> js_bits(torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log())
        tensor([1.])
    """
    p, q = (logits.double().softmax(-1) for logits in (first, second))
    # The entropy of the mixture minus the mean entropy; a mask has probability 0 and needs no search.
    parts = torch.special.entr(p.lerp(q, 0.5)) - torch.special.entr(p).lerp_(torch.special.entr(q), 0.5)
    bits: Tensor = (parts.sum(-1) / math.log(2)).clamp_(0, 1)
    return bits if first.dtype == second.dtype == torch.float64 else bits.float()


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p, q) in nats, ``[rows]``; a token without probability under p counts 0."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1).clamp_min(0)


def _js(p: Tensor, q: Tensor, weight: float) -> Tensor:
    """Return the Jensen-Shannon divergence in nats; p has this weight in the mixture."""
    middle = torch.logaddexp(p + math.log(weight), q + math.log1p(-weight))
    return weight * _kl(p, middle) + (1 - weight) * _kl(q, middle)


def _renyi(p: Tensor, q: Tensor, order: float) -> Tensor:
    """Return the Renyi divergence of an order, or its limit."""
    possible = p > -torch.inf
    if math.isinf(order):
        return torch.where(possible, p - q, -torch.inf).amax(-1).clamp_min(0)
    if order < LIMIT:
        return -torch.where(possible, q, -torch.inf).logsumexp(-1).clamp_max(0)
    if abs(order - 1) < LIMIT:
        return _kl(p, q)
    return (_log_affinity(p, q, order) / (order - 1)).clamp_min(0)


def _alpha(p: Tensor, q: Tensor, order: float) -> Tensor:
    """Return the divergence of the alpha family of an order, or its limit."""
    if abs(order) < LIMIT or abs(order - 1) < LIMIT:
        return _kl(q, p) if abs(order) < LIMIT else _kl(p, q)
    return (_log_affinity(p, q, order).expm1() / (order * (order - 1))).clamp_min(0)


def _log_affinity(p: Tensor, q: Tensor, order: float) -> Tensor:
    """Return log sum p^order q^(1 - order), ``[rows]``; a token without probability under both counts 0."""
    neither = (p == -torch.inf) & (q == -torch.inf)
    return (order * p + (1 - order) * q).masked_fill(neither, -torch.inf).logsumexp(-1)


def _chi2(p: Tensor, q: Tensor) -> Tensor:
    """Return sum (p - q)^2 / q; inf where q lacks a token of p."""
    ratio = torch.where(q > -torch.inf, (p - q).expm1(), torch.inf)  # (p - q) / q
    return (
        torch.where((p == -torch.inf) & (q == -torch.inf), 0.0, q.exp() * ratio * ratio)
        .nan_to_num(nan=torch.inf)
        .sum(-1)
    )


KINDS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "kl": lambda p, q, _: _kl(p, q),
    "reverse_kl": lambda p, q, _: _kl(q, p),
    "js": _js,
    "jeffreys": lambda p, q, _: _kl(p, q) + _kl(q, p),
    "renyi": _renyi,
    "alpha": _alpha,
    "tv": lambda p, q, _: (p.exp() - q.exp()).abs().sum(-1) / 2,
    "hellinger": lambda p, q, _: (((p / 2).exp() - (q / 2).exp()).square().sum(-1) / 2).sqrt(),
    "chi2": lambda p, q, _: _chi2(p, q),
}
