"""Combination of the next-byte distributions of several models.

With normalised distributions p_i and weights w_i that sum to 1, the next-byte distribution is

- ``mixture``: sum_i w_i p_i, as Phan et al. (arXiv:2410.09303, section 5) and Hayase et al. (arXiv:2506.14123) mix
  models.
- ``product``: proportional to prod_i p_i ** w_i.
- ``sequence``: sum_i v_i p_i, with v_i proportional to w_i times the probability that model i gives to all bytes
  written after the prompt. This is the distribution of choosing one model by w_i and letting it write the whole text
  (prefix weights of genlm-control; Vieira et al., arXiv:2412.03719). ``mixture`` is a different distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from logitkit.errors import ParameterError

Fuse = Literal["mixture", "product", "sequence"]


def fuse_distributions(
    distributions: Tensor, log_weights: Tensor, how: Fuse = "mixture", *, allowed: Tensor | None = None
) -> Tensor:
    """Combine next-byte distributions of several models.

    Args:
        distributions: log-probabilities in nats, ``[models, rows, vocab]``, the main model first.
        log_weights: logarithms of the weights, ``[models]`` or ``[models, rows]``; for ``sequence`` with the
            log-probability of the written bytes under each model added. They need not be normalised. Where the
            weights of a row are all -inf, all models have the same weight.
        how: ``product`` for the normalised geometric mean, else the arithmetic mean.
        allowed: entries that may have probability, bool ``[rows, vocab]``; None: all.

    Returns:
        Normalised fp32 log-probabilities, ``[rows, vocab]``. A row in which no entry has probability is the main
        model's row.

    >>> p = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]])
    >>> fuse_distributions(p.log(), torch.tensor([0.5, 0.5]).log()).exp()
    tensor([[0.3750, 0.6250]])
    """
    distributions = distributions.float()
    log_weights = log_weights[:, None].expand(distributions.shape[:2]) if log_weights.ndim == 1 else log_weights
    unweighted = (log_weights == -torch.inf).all(0)
    shares = log_weights.masked_fill(unweighted, 0.0).log_softmax(0).to(distributions)[..., None]  # [models, rows, 1]
    if how == "product":
        # A model of weight 0 must make no entry impossible, although 0 * -inf is nan.
        weighted = torch.where(shares == -torch.inf, 0.0, shares.exp() * distributions)
        fused = _or_main(weighted.sum(0), distributions[0])
    else:
        fused = (shares + distributions).logsumexp(0).log_softmax(-1)
    if allowed is None:
        return fused
    return _or_main(fused.masked_fill(~allowed, -torch.inf), distributions[0])


def _or_main(fused: Tensor, main: Tensor) -> Tensor:
    """Normalise rows of log-probabilities; a row that is all -inf becomes the main model's."""
    empty = (fused == -torch.inf).all(-1, keepdim=True)
    return torch.where(empty, main, fused).log_softmax(-1)


def normalised_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Return weights that sum to 1, one for each model.

    Args:
        weights: the main model's first, ``>= 0``; None: all models have the same weight.
        count: number of models.

    Raises:
        ParameterError: another number of weights, a negative or infinite weight, only zeros.

    >>> normalised_weights([1, 3], 2), normalised_weights(None, 4)
    ([0.25, 0.75], [0.25, 0.25, 0.25, 0.25])
    """
    raw = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(raw) != count or not all(0 <= weight < float("inf") for weight in raw) or sum(raw) <= 0:
        rule = f"{count} finite numbers >= 0 (the generating model's first), not all 0"
        raise ParameterError("byte_ensemble", "weights", rule, weights)
    return [weight / sum(raw) for weight in raw]
