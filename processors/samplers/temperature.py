"""Temperatures that depend on the row, and the quadratic transform of logits. Pure functions over rows of scores.

Every row has its own entropy and its own maximum. Tokens that are impossible before (-inf, or the least finite number)
stay so and take no part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from logitkit.params import is_neutral
from logitkit.processors.engine.scores import with_infinite_masks

__all__ = ["dynamic_temperature", "entropy_temperature", "quadratic"]

LEAST_TEMPERATURE = 1e-3  # of `entropy_temperature`; logits that differ by 0.1 are then 100 nats apart


def dynamic_temperature(scores: Tensor, *, low: float, high: float, exponent: float = 1.0) -> Tensor:
    """Divide each row by a temperature between two limits, which grows with the entropy of the row.

    The temperature is ``low + (high - low) (H / log n) ** exponent``, where H is the entropy of the row and n the
    number of its possible tokens. A row with one possible token stays as it is. At the temperature 0 only the first of
    the most probable tokens stays possible. Source: kalomaze; llama.cpp, ``llama_sampler_init_temp_ext``.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        low: temperature at entropy 0, at least 0.
        high: temperature of a uniform row, at least ``low``. With both 1, ``scores`` itself is returned.
        exponent: at least 0.

    Example:
        >>> row = torch.tensor([[0.9, 0.1]]).log()  # the entropy is 0.469 of that of a uniform row
        >>> (row / dynamic_temperature(row, low=0.5, high=1.5))[0]
        tensor([0.9690, 0.9690])
    """
    if is_neutral(low, 1) and is_neutral(high, 1):
        return scores
    entropy, count = entropies(scores)
    share = (entropy / count.clamp(min=2).log()).clamp(0, 1)
    temperature = low + (high - low) * share.pow(exponent)
    return divided(scores, torch.where(count > 1, temperature, 1.0))


def entropy_temperature(scores: Tensor, *, temperature: float, theta: float, base: float = 0.8) -> Tensor:
    """Divide each row by ``temperature * base ** (theta / H)``, where H is the entropy of the row in nats.

    A sure row gets a low temperature, at least 0.001. Source: arXiv:2403.14541, equation 2.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        temperature: the temperature of a row of infinite entropy, above 0.
        theta: at least 0; 0 is a fixed temperature. With temperature 1 and theta 0, ``scores`` itself is returned.
        base: above 0, below 1.

    Example:
        >>> row = torch.tensor([[0.5, 0.5, 0.0]]).log()  # the entropy is log 2 = 0.693
        >>> (row / entropy_temperature(row, temperature=1.0, theta=0.693, base=0.8))[0, :2]
        tensor([0.8000, 0.8000])
    """
    if is_neutral(temperature, 1) and is_neutral(theta, 0):
        return scores
    if is_neutral(theta, 0):
        factor: Tensor | float = 1.0
    else:
        entropy, _ = entropies(scores)
        factor = (math.log(base) * theta / entropy).exp()  # 0 at entropy 0
    limit = torch.full((len(scores), 1), temperature, dtype=torch.float64, device=scores.device) * factor
    return divided(scores, limit.clamp(min=LEAST_TEMPERATURE))


def quadratic(scores: Tensor, *, factor: float, curve: float = 1.0) -> Tensor:
    """Lower each logit by a quadratic or cubic function of its distance from the largest logit of the row.

    With x the logit minus the largest one m, the result is ``m - k factor x**2 + s factor x**3``, where
    ``k = (3 - curve) / 2`` and ``s = (curve - 1) / 2``. The order of tokens stays. Source: text-generation-webui,
    ``smoothing_factor`` and ``smoothing_curve``; it takes one maximum for all rows of a batch.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        factor: at least 0; 0 returns ``scores`` itself, which is not the limit of small factors: that is uniform.
        curve: 1, a parabola, to 3, a cubic.

    Example:
        >>> quadratic(torch.tensor([[2.0, 1.0, -1.0]]), factor=0.5)
        tensor([[ 2.0000,  1.5000, -2.5000]])
    """
    if is_neutral(factor, 0):
        return scores
    logits = with_infinite_masks(scores).double()  # cubes of fp32 logits near 1e30 are no fp32 numbers
    largest = logits.amax(-1, keepdim=True)
    below = logits - largest  # [rows, vocab], at most 0
    # (s x - k) is at most 0, and below 0 where x is below 0, so an infinite square gives -inf and not NaN.
    bent = largest + factor * below.square() * ((curve - 1) / 2 * below - (3 - curve) / 2)
    return torch.where(logits > -torch.inf, bent, -torch.inf).to(scores.dtype)


def entropies(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entropy of each row in nats, float64 ``[rows, 1]``, and the number of its possible tokens."""
    logits = with_infinite_masks(scores).double()
    largest, best = logits.max(-1, keepdim=True)
    possible, below = logits > -torch.inf, logits - largest
    weights = below.exp()
    # H = log Z - sum w log w / Z. Without the best token in the sum, log Z of a sure row is not rounded to 0.
    others = weights.scatter(-1, best, 0.0).sum(-1, keepdim=True)
    moment = (weights * below.masked_fill(~possible, 0.0)).sum(-1, keepdim=True)
    return others.log1p() - moment / (1 + others), possible.sum(-1, keepdim=True)


def divided(scores: Tensor, temperature: Tensor) -> Tensor:
    """Return the scores divided by a temperature of each row; at 0 the first of the largest scores alone stays.

    A row whose quotients its dtype cannot hold is shifted first, so that the largest score becomes 0.

    Args:
        scores: ``[rows, vocab]``.
        temperature: at least 0, ``[rows, 1]``.

    Example:
        >>> divided(torch.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0]]), torch.tensor([[0.5], [0.0]]))
        tensor([[4., 4., 2.],
                [2., -inf, -inf]])
    """
    logits = with_infinite_masks(scores)
    largest, best = logits.max(-1, keepdim=True)
    wide = torch.promote_types(scores.dtype, torch.float32)
    zero = temperature < torch.finfo(wide).tiny  # in fp32 a smaller one is 0 or inexact
    temperature = temperature.masked_fill(zero, 1.0)
    size = torch.maximum(largest.abs(), logits.masked_fill(logits == -torch.inf, 0.0).amin(-1, keepdim=True).abs())
    shift = torch.where(size.double() / temperature > torch.finfo(scores.dtype).max, largest, 0.0)
    quotient = (logits - shift) / temperature.to(wide)
    first = torch.arange(scores.shape[-1], device=scores.device) == best
    return quotient.masked_fill(zero & ~first, -torch.inf).to(scores.dtype)
