"""Slow and obvious: the laws of speculative cascades from their equations, token by token."""

from __future__ import annotations

import torch
from torch import Tensor


def laws(seed: int, rows: int = 4, width: int = 7, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Two random laws in float64, some tokens impossible in both."""
    generator = torch.Generator().manual_seed(seed)
    q, p = (scale * torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
    q[:, -1] = p[:, -1] = -torch.inf
    return q.log_softmax(-1), p.log_softmax(-1)


def by_hand(rule: str, q: list[float], p: list[float], alpha: float, qt: list[float], pt: list[float]) -> list[float]:
    """Slow and obvious, from the equations: one row, one token at a time."""
    tv = sum(max(0.0, a - b) for a, b in zip(q, p, strict=True))
    whole = {
        "chow": max(qt) >= 1 - alpha,
        "diff": max(qt) >= max(pt) - alpha,
        "opt": max(qt) >= max(pt) - alpha * tv,
    }
    if rule in whole:
        return q if whole[rule] else p
    inside = {
        "token_v1": lambda v: qt[v] >= max(pt) - alpha,
        "token_v2": lambda v: pt[v] >= max(pt) - alpha,
        "token_v3": lambda v: pt[v] >= (1 - alpha) * max(pt),
    }[rule]
    out = sum(q[v] for v in range(len(q)) if not inside(v))
    return [(q[v] if inside(v) else 0.0) + p[v] * out for v in range(len(q))]
