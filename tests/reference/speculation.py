"""Reference implementation of speculative cascades: the equations of arXiv:2405.19261, one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def random_distributions(seed: int, rows: int = 4, width: int = 7, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Return two random distributions as float64 log-probabilities, ``[rows, width]``.

    The last token is impossible in both.

    Args:
        seed: of the random logits.
        rows, width: shape.
        scale: standard deviation of the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    q, p = (scale * torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
    q[:, -1] = p[:, -1] = -torch.inf
    return q.log_softmax(-1), p.log_softmax(-1)


def cascade_by_tokens(
    rule: str, q: list[float], p: list[float], alpha: float, small: list[float], large: list[float]
) -> list[float]:
    """Return the cascade distribution of one row, token by token.

    Args:
        rule: name of the deferral rule.
        q, p: sampling distributions of the small and the large model, as probabilities.
        alpha: tolerance for the small model.
        small, large: distributions that the rule compares, as probabilities.
    """
    variation = sum(max(0.0, a - b) for a, b in zip(q, p, strict=True))
    accepts_row = {
        "chow": max(small) >= 1 - alpha,
        "diff": max(small) >= max(large) - alpha,
        "opt": max(small) >= max(large) - alpha * variation,
    }
    if rule in accepts_row:
        return q if accepts_row[rule] else p
    accepts_token = {
        "token_v1": lambda v: small[v] >= max(large) - alpha,
        "token_v2": lambda v: large[v] >= max(large) - alpha,
        "token_v3": lambda v: large[v] >= (1 - alpha) * max(large),
    }[rule]
    rejected = sum(q[v] for v in range(len(q)) if not accepts_token(v))
    return [(q[v] if accepts_token(v) else 0.0) + p[v] * rejected for v in range(len(q))]
