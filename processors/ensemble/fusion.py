"""The plain ensemble: mean, geometric mean or maximum of distributions over one vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Fuse = Literal["arithmetic", "geometric", "max"]


def fuse(
    main: Tensor,
    helpers: Sequence[Tensor],
    weights: Sequence[float],
    how: Fuse = "arithmetic",
    reachable: Sequence[Tensor | None] = (),
) -> Tensor:
    """Combine distributions over one vocabulary.

    ``arithmetic`` is the weighted mean of probabilities (GaC, arXiv:2406.12585; UniTE, arXiv:2410.03777).
    ``geometric`` is the weighted mean of log-probabilities; for a token that a helper cannot reach, the main model's
    log-probability takes the helper's place. ``max`` is the largest weighted probability.

    Args:
        main: probabilities of the main model, ``[rows, vocab]``.
        helpers: probabilities of each helper, same shape; a row may sum to less than 1.
        weights: one for each model, the main model's first, ``>= 0``, with a positive sum.
        how: ``arithmetic``, ``geometric`` or ``max``.
        reachable: for each helper the tokens that it can give probability, bool ``[vocab]``; None or left out: all.

    Returns:
        Normalised fp32 log-probabilities in nats, ``[rows, vocab]``. A row without any probability is the main
        model's.

    >>> main, helper = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> fuse(main, [helper], [1.0, 1.0]).exp()
    tensor([[0.3750, 0.6250]])
    """
    p = torch.stack([main, *helpers]).float()  # [models, rows, vocab]
    share = torch.tensor(weights, device=p.device)[:, None, None] / sum(weights)
    if how == "arithmetic":
        mixed = (share * p).sum(0).log()
    elif how == "max":
        mixed = (share * p).amax(0).log()
    else:
        weighted = [model for model, weight in enumerate(weights) if weight > 0]
        mixed = (share[weighted] * _evidence(p, reachable)[weighted]).sum(0)
    empty = (mixed == -torch.inf).all(-1, keepdim=True)
    return torch.where(empty, main.log(), mixed).log_softmax(-1)


def _evidence(p: Tensor, reachable: Sequence[Tensor | None]) -> Tensor:
    """Return log-probabilities ``[models, rows, vocab]``; the main model's where a helper cannot reach a token."""
    logp = p.log()
    for model, mask in enumerate(reachable, start=1):
        if mask is not None:
            logp[model] = torch.where(mask, logp[model], logp[0])
    return logp
