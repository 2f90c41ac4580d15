"""The optimum of a reward under a divergence from a distribution.

Guidance is the distribution pi that maximises ``E_pi[r] - D(pi, p)`` for the reward ``r = (scale - 1) log(p / q)``.
Under reverse KL, ``D = KL(pi, p)``, this is ``p exp(r)``, normalised: a token with almost no probability wins if its
reward is large. arXiv:2309.16240 (f-DPO) derives the optima under other divergences:

- ``forward_kl``, ``D = KL(p, pi)``: ``pi = p / (lambda - r)``. Each token keeps at least ``p / (1 + max r - r)``.
- ``js``, ``D = KL(pi, m) + KL(p, m)`` with ``m = (pi + p) / 2``: ``pi = p / (2 exp(lambda - r) - 1)``. A token keeps at
  least ``p / (2 exp(max r - r) - 1)``, which protects from moderate rewards only, since the divergence is bounded.

Lambda makes the sum 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from logitkit.processors.engine.log_probabilities import mark_normalised

Tilt = Literal["reverse_kl", "forward_kl", "js"]
HALVINGS = 40  # of the logarithm of the unknown, whose interval is at most 700 wide


def tilted(logp: Tensor, reward: Tensor, divergence: Tilt) -> Tensor:
    """Return the distribution that maximises the expected reward minus a divergence from p, for each row.

    The multiplier lambda is found by bisection, in fp64 and without a host read.

    Args:
        logp: log-probabilities, ``[rows, vocab]``; -inf stays.
        reward: in nats, finite where ``logp`` is, same shape.
        divergence: ``reverse_kl``, ``forward_kl`` or ``js``; see the module.

    Returns:
        log-probabilities, fp32, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> logp, reward = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[3.0, 0.0]])
        >>> tilted(logp, reward, "reverse_kl").exp(), tilted(logp, reward, "forward_kl").exp()
        (tensor([[0.9526, 0.0474]]), tensor([[0.8604, 0.1396]]))
    """
    if divergence == "reverse_kl":
        return mark_normalised((logp + reward).log_softmax(-1))
    possible = logp > -torch.inf
    reward = torch.where(possible, reward, -torch.inf).double()
    distance, best = reward.amax(-1, keepdim=True) - reward, reward.argmax(-1, keepdim=True)  # distances are >= 0
    # Both optima are p / (a * factor + rest) with one unknown a of each row, between p of the best reward and 1.
    factor, rest = (torch.ones_like(distance), distance) if divergence == "forward_kl" else _of_js(distance)
    a = _unknown(logp.double().exp(), factor, rest, logp.double().gather(-1, best))
    if divergence == "forward_kl":
        divisor = (a + distance).log()
    else:
        x = a.log1p() + distance  # the divisor is exp(x) - 1, whose logarithm must not overflow
        divisor = x + (-torch.expm1(-x)).log()
    score = (logp.double() - divisor).masked_fill(~possible, -torch.inf).float()
    return mark_normalised(score.log_softmax(-1))


def _of_js(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``exp(d)`` and ``exp(d) - 1``: with ``a = exp(u) - 1``, ``exp(u + d) - 1 = a exp(d) + exp(d) - 1``."""
    return distance.exp(), distance.expm1()


def _unknown(p: Tensor, factor: Tensor, rest: Tensor, log_least: Tensor) -> Tensor:
    """Return a with ``sum p / (a * factor + rest) = 1`` for each row, ``[rows, 1]``, by bisection of its logarithm.

    The sum falls as a grows. At ``a = p`` of the token with the largest reward, whose rest is 0, it is at least 1, and
    at 1 at most 1.
    """
    low = log_least.clamp_min(-700.0)  # exp of it is a normal number in fp64
    high = torch.zeros_like(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (p / (middle.exp() * factor + rest)).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return ((low + high) / 2).exp()
