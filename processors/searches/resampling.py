"""Systematic resampling of weighted sequences, and the effective sample size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logitkit.processors.searches.random_numbers import uniform

if TYPE_CHECKING:
    from logitkit.processors.searches.run import Found, SearchRun

FINAL = -1  # step of the draws that choose the returned sequences


def effective_size(log_weights: Tensor) -> Tensor:
    """Return the effective sample size ``(sum w)^2 / sum w^2`` of each row of weights, between 1 and their number.

    Args:
        log_weights: nats, unnormalised, ``[prompts, particles]``; a row whose weights are all 0 has size 0.

    >>> effective_size(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()).tolist()
    [2.0, 1.0]
    """
    log_size = 2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)
    return log_size.exp().nan_to_num(0.0)


def systematic(log_weights: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Return the numbers of the particles that systematic resampling keeps, ``[prompts, count]``, in order.

    One random number places a comb of ``count`` equal teeth over the cumulated weights; a particle is kept once for
    each tooth in its interval. The expected number of copies is ``count`` times the weight, and the number itself
    differs from it by less than 1. Source: Kitagawa 1996; Douc and Cappé, arXiv:cs/0507025.

    Args:
        log_weights: nats, unnormalised, ``[prompts, particles]``; no row has only weights of 0.
        numbers: in [0, 1), float64, ``[prompts]``.
        count: number of kept particles.

    By hand: the teeth 0.125, 0.375, 0.625 and 0.875 over weights 0.5, 0.25, 0.25.

    >>> systematic(torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([0.5]).double(), 4).tolist()
    [[0, 0, 1, 2]]
    """
    weights = log_weights.double().softmax(-1)
    cumulative = weights.cumsum(-1)
    teeth = (torch.arange(count, device=weights.device) + numbers[:, None]) / count * cumulative[:, -1:]
    last = (weights > 0) * torch.arange(weights.shape[1], device=weights.device)
    return torch.searchsorted(cumulative, teeth, right=True).clamp_max(last.amax(-1, keepdim=True))


def resampled(found: Found, run: SearchRun, count: int) -> Found:
    """Return ``count`` sequences of each prompt, drawn by systematic resampling, with equal weights.

    Args:
        found: weighted sequences.
        run: the run that found them.
        count: sequences of each prompt.
    """
    weights = found.weights_of(run.prompts)
    index = systematic(weights, uniform(run.seeds, FINAL), count)
    index = index + torch.arange(run.prompts, device=index.device)[:, None] * weights.shape[1]
    equal = torch.full((run.prompts, count), -math.log(count), dtype=torch.float64, device=index.device)
    return found.kept(index.flatten(), equal)
