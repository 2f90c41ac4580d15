"""Truncations: which tokens of a row stay possible. Pure functions over rows of scores.

Each function returns new scores with -inf for the removed tokens; the other scores are bit-identical. Tokens that are
impossible before (-inf, or the least finite number) take no part: they count in no sum and no mean. The order of tokens
is by descending score, then by ascending id. The first ``min_keep`` tokens of a row are never removed, except by `xtc`,
which removes the first tokens on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from logitkit.params import is_neutral
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import with_infinite_masks

__all__ = ["p_less", "tail_free", "top_a", "top_n_sigma", "xtc"]

LEAST_SUM = 1e-6  # a smaller sum of second differences is rounding: the probabilities lie on a straight line


def xtc(scores: Tensor, acts: Tensor, *, threshold: float, min_keep: int = 1, protected: Sequence[int] = ()) -> Tensor:
    """Remove every token of at least a threshold probability except the least probable of them (exclude top choices).

    Source: p-e-w, text-generation-webui, pull request 6335; llama.cpp, ``llama_sampler_init_xtc``.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        acts: whether the coin of each row says that tokens are removed, bool ``[rows]``.
        threshold: probability, 0 to 1; above 0.5 nothing is ever removed.
        min_keep: a row that would keep fewer tokens stays as it is.
        protected: ids of tokens; a row that would lose one of them stays as it is.

    Example:
        >>> scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
        >>> xtc(scores, torch.tensor([True]), threshold=0.1).exp()
        tensor([[0.0000, 0.0000, 0.1500, 0.0500]])
    """
    logp = log_probabilities(scores)
    possible = logp > -torch.inf
    chosen = (logp.exp() >= threshold) & possible
    lowest = logp.masked_fill(~chosen, torch.inf).amin(-1, keepdim=True)
    ids = torch.arange(scores.shape[-1], device=scores.device)
    last = torch.where(chosen & (logp == lowest), ids, -1).amax(-1, keepdim=True)  # of equals, the largest id
    removed = chosen & (ids != last)
    acts = acts & (possible.sum(-1) - removed.sum(-1) >= min_keep)
    if len(protected):
        acts = acts & ~removed[:, list(protected)].any(-1)
    return scores.masked_fill(removed & acts[:, None], -torch.inf)


def top_n_sigma(scores: Tensor, *, n: float, min_keep: int = 1) -> Tensor:
    """Keep tokens whose logit is at most n standard deviations below the largest logit.

    The deviation is that of the population: the mean square is divided by the number of possible tokens, as in
    llama.cpp. The kept tokens are the same at every temperature. Source: arXiv:2411.07641, section 3.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        n: number of standard deviations; 0 or less returns ``scores`` itself.
        min_keep: number of tokens that are kept at least.

    Example:
        >>> top_n_sigma(torch.tensor([[3.0, 1.0, 0.0, 0.0]]), n=1.7)  # the deviation is 1.2247
        tensor([[3., 1., -inf, -inf]])
    """
    if n <= 0 or is_neutral(n, 0):
        return scores
    logits = with_infinite_masks(scores).double()  # squares of fp32 logits near 1e30 are no fp32 numbers
    possible = logits > -torch.inf
    count = possible.sum(-1, keepdim=True).clamp(min=1)
    below = (logits.amax(-1, keepdim=True) - logits).masked_fill(~possible, 0.0)  # distances from the largest
    mean = below.sum(-1, keepdim=True) / count
    squares = (below - mean).square().masked_fill(~possible, 0.0).sum(-1, keepdim=True)
    return truncated(scores, possible & (below <= n * (squares / count).sqrt()), min_keep)


def p_less(scores: Tensor, *, normalized: bool = False, min_keep: int = 1) -> Tensor:
    """Keep tokens at least as probable as the chance that two draws from the row are the same token.

    The chance is the sum of squared probabilities, and never more than the largest probability; rounding would
    otherwise remove every token of a flat row. Source: arXiv:2509.23234.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        normalized: lower the threshold L to (V L - 1) / (V - 1), at least 0, where V is the width of the row.
        min_keep: number of tokens that are kept at least.

    Example:
        >>> p_less(torch.tensor([[0.5, 0.4, 0.1]]).log()).exp()  # the threshold is 0.42
        tensor([[0.5000, 0.0000, 0.0000]])
        >>> p_less(torch.tensor([[0.5, 0.4, 0.1]]).log(), normalized=True).exp()  # the threshold is 0.13
        tensor([[0.5000, 0.4000, 0.0000]])
    """
    probabilities = log_probabilities(scores).exp()
    threshold = probabilities.square().sum(-1, keepdim=True)
    width = scores.shape[-1]
    if normalized and width > 1:
        threshold = ((width * threshold - 1) / (width - 1)).clamp(min=0)
    threshold = torch.minimum(threshold, probabilities.amax(-1, keepdim=True))
    return truncated(scores, probabilities >= threshold, min_keep)


def top_a(scores: Tensor, *, a: float, min_keep: int = 1) -> Tensor:
    """Keep tokens of at least ``a`` times the squared largest probability.

    Source: text-generation-webui and KoboldAI; there is no paper.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        a: factor, 0 to 1; 0 returns ``scores`` itself.
        min_keep: number of tokens that are kept at least.

    Example:
        >>> top_a(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), a=0.5).exp()  # the threshold is 0.125
        tensor([[0.5000, 0.3000, 0.1500, 0.0000]])
    """
    if is_neutral(a, 0):
        return scores
    probabilities = log_probabilities(scores).exp()
    threshold = a * probabilities.amax(-1, keepdim=True).square()
    return truncated(scores, probabilities >= threshold, min_keep)


def tail_free(scores: Tensor, *, z: float, min_keep: int = 1) -> Tensor:
    """Cut the tail where the sorted probabilities bend least (tail free sampling).

    The absolute second differences of the sorted probabilities, divided by their sum, are added up from the first
    token. The first i tokens stay, where i, counted from 0, is the first place at which the sum exceeds z. Differences
    of sum 0, as between equal probabilities, count as equal. Source: T. Phénix and J. Egan, "Tail free sampling", 2019.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        z: share of the differences, 0 to 1; 1 returns ``scores`` itself.
        min_keep: number of tokens that are kept at least.

    Example:
        >>> tail_free(torch.tensor([[0.6, 0.2, 0.1, 0.1]]).log(), z=0.5, min_keep=2).exp()  # differences 0.75, 0.25
        tensor([[0.6000, 0.2000, 0.1000, 0.1000]])
        >>> tail_free(torch.tensor([[0.6, 0.2, 0.1, 0.1]]).log(), z=0.8).exp()
        tensor([[0.6000, 0.0000, 0.0000, 0.0000]])
    """
    if is_neutral(z, 1):
        return scores
    logp = log_probabilities(scores)
    count = (logp > -torch.inf).sum(-1, keepdim=True)  # of possible tokens, [rows, 1]
    ordered, ids = torch.sort(logp, dim=-1, descending=True, stable=True)
    bends = ordered.exp().diff(dim=-1).diff(dim=-1).abs()  # [rows, vocab - 2]
    places = torch.arange(bends.shape[-1], device=scores.device)
    inside = places < count - 2
    bends = bends.masked_fill(~inside, 0.0)
    total = bends.sum(-1, keepdim=True)
    shares = torch.where(total > LEAST_SUM, bends / total, inside / (count - 2).clamp(min=1))
    cut = (shares.cumsum(-1) > z) & inside & (places >= min_keep)
    kept = torch.where(cut, places, scores.shape[-1]).amin(-1, keepdim=True) if cut.shape[-1] else count
    ranks = torch.arange(scores.shape[-1], device=scores.device)
    keep = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, ids, ranks < kept)
    return scores.masked_fill(~keep, -torch.inf)


def truncated(scores: Tensor, keep: Tensor, min_keep: int) -> Tensor:
    """Return the scores with -inf for tokens that are neither kept nor among the first ``min_keep`` of their row.

    Args:
        scores: ``[rows, vocab]``.
        keep: bool ``[rows, vocab]``; the first token of each row is kept.
        min_keep: at least 1.
    """
    keep = keep | first_tokens(scores, min_keep) if min_keep > 1 else keep
    return scores.masked_fill(~keep, -torch.inf)


def first_tokens(scores: Tensor, count: int) -> Tensor:
    """Return which tokens are the first ``count`` of their row, bool ``[rows, vocab]``; nothing is sorted.

    Example:
        >>> first_tokens(torch.tensor([[1.0, 2.0, 1.0, 1.0]]), 2)
        tensor([[ True,  True, False, False]])
    """
    limit = scores.topk(min(count, scores.shape[-1])).values[..., -1:]
    above, equal = scores > limit, scores == limit
    return above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
