"""Deferral rules of speculative cascades, as pure functions: when a token of the small model is kept.

Source: speculative cascades, arXiv:2405.19261, section 4. Notation: ``q`` is the next-token distribution of the
small model and ``p`` that of the large model. A rule chooses the accepted set ``A``. A token drawn from ``q`` is
kept when it lies in ``A``; otherwise a token is drawn from ``p``. The resulting distribution is

    pi(v) = q(v) [v in A] + p(v) sum_{u not in A} q(u)

=============  =====================================  ==========================================================
rule           condition                              accepted set
=============  =====================================  ==========================================================
``chow``       max q >= 1 - alpha                     all tokens or none
``diff``       max q >= max p - alpha                 all tokens or none
``opt``        max q >= max p - alpha TV(p, q)        all tokens or none; TV is the total variation distance
``js``         JS(q, p) <= alpha                      all tokens or none; Jensen-Shannon divergence, in bits
``token_v1``   q(v) >= max p - alpha                  single tokens
``token_v2``   p(v) >= max p - alpha                  single tokens
``token_v3``   p(v) >= (1 - alpha) max p              single tokens
=============  =====================================  ==========================================================

The ``js`` rule is an addition to the paper. Conditions compare the distributions that the models return.
Tokens may be drawn from other distributions, for example after temperature and top-p; such *sampling
distributions* are separate arguments, as in the released notebook of the paper.

Inputs and outputs are natural logarithms of probabilities. The dtype is kept: float64 in gives float64 out.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from logitkit.params import is_neutral
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import LEAST_DIFFERENCE, is_impossible, mark_masked, with_infinite_masks

TokenRule = Literal["chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "js"]
TOKEN_RULES: tuple[TokenRule, ...] = get_args(TokenRule)


def accepted_tokens(
    rule: TokenRule,
    small: Tensor,
    large: Tensor,
    *,
    alpha: float,
    sampling_small: Tensor | None = None,
    sampling_large: Tensor | None = None,
) -> Tensor:
    """Return the accepted set of a rule; the module docstring lists the conditions.

    Args:
        rule: one of `TOKEN_RULES`.
        small, large: log-probabilities that the condition compares, ``[rows, vocab]``.
        alpha: tolerance for the small model, 0 to 1. At 1 every token is accepted (under ``opt`` only where the
            sampling distributions are ``small`` and ``large``). At 0 the cascade equals the large model under
            ``chow``, and under ``token_v2`` and ``token_v3`` with greedy sampling distributions. Under the other
            rules a small model that is more confident than the large one is kept even at 0.
        sampling_small, sampling_large: distributions that tokens are drawn from; ``opt`` uses their total
            variation. Default: ``small`` and ``large``.

    Returns:
        bool ``[rows, vocab]``, True for accepted tokens. Ties are accepted.

    >>> small, large = torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([[0.2, 0.7, 0.1]]).log()
    >>> accepted_tokens("token_v3", small, large, alpha=0.5)  # p(v) >= 0.35
    tensor([[False,  True, False]])
    """
    if is_neutral(alpha, 1) and rule != "opt":
        return torch.ones_like(small, dtype=torch.bool)
    best_large = large.amax(-1, keepdim=True)  # [rows, 1]
    if rule == "token_v1":
        return small.exp() >= best_large.exp() - alpha
    if rule == "token_v2":
        return large.exp() >= best_large.exp() - alpha
    if rule == "token_v3":
        return large >= best_large + math.log1p(-alpha)
    q, p = (small if sampling_small is None else sampling_small), (large if sampling_large is None else sampling_large)
    return _accepted_rows(rule, small, large, alpha, q, p)[:, None].expand_as(small)


def _accepted_rows(rule: TokenRule, small: Tensor, large: Tensor, alpha: float, q: Tensor, p: Tensor) -> Tensor:
    """Evaluate a condition that accepts all tokens of a row or none, bool ``[rows]``."""
    best_small, best_large = small.amax(-1).exp(), large.amax(-1).exp()  # [rows]
    if rule == "chow":
        return best_small >= 1 - alpha
    if rule == "diff":
        return best_small >= best_large - alpha
    if rule == "js":
        return js_bits(small, large) <= alpha
    variation = (q.exp() - p.exp()).clamp_min(0).sum(-1)
    # At alpha = 1 both sides can be equal in exact arithmetic; without the margin rounding would decide.
    return best_small >= best_large - alpha * variation - 16 * torch.finfo(small.dtype).eps


def always_needs_large(rule: TokenRule) -> bool:
    """Return whether a rule decides no row without the large model, so that no row has to be asked.

    >>> always_needs_large("js"), always_needs_large("chow")
    (True, False)
    """
    return rule not in ("chow", "diff", "token_v1")


def decided_without_large(
    rule: TokenRule, small: Tensor, *, alpha: float, sampling_small: Tensor | None = None
) -> Tensor:
    """Return the rows that keep the small model for every possible output of the large model.

    No forward of the large model is needed for these rows. Probabilities are at most 1, so ``diff`` is decided
    where max q >= 1 - alpha, and ``token_v1`` where every token with positive sampling probability has
    q(v) >= 1 - alpha. ``chow`` never depends on the large model.

    Args:
        rule, small, alpha: as in `accepted_tokens`.
        sampling_small: the distribution that tokens are drawn from, ``[rows, vocab]``; default ``small``.

    Returns:
        bool ``[rows]``.

    >>> decided_without_large("chow", torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log(), alpha=0.3)
    tensor([ True, False])
    """
    if is_neutral(alpha, 1) and rule != "opt":
        return torch.ones_like(small[:, 0], dtype=torch.bool)
    if rule in ("chow", "diff"):
        return small.amax(-1).exp() >= 1 - alpha
    if rule == "token_v1":
        possible = ~is_impossible(small if sampling_small is None else sampling_small)
        return (~possible | (small.exp() >= 1 - alpha)).all(-1)
    return torch.zeros_like(small[:, 0], dtype=torch.bool)


def mixture(small: Tensor, large: Tensor, accepted: Tensor) -> Tensor:
    """Return the distribution of a cascade for a given accepted set: log pi.

    Args:
        small, large: sampling distributions as log-probabilities, ``[rows, vocab]``.
        accepted: the accepted set, bool ``[rows, vocab]``.

    Returns:
        Normalised log-probabilities, ``[rows, vocab]``. A row that accepts every token is ``small`` bit for bit;
        a row that accepts none is ``large`` bit for bit.

    >>> small, large = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.2, 0.8]]).log()
    >>> mixture(small, large, torch.tensor([[False, True]])).exp()  # (0.6 * 0.2, 0.4 + 0.6 * 0.8)
    tensor([[0.1200, 0.8800]])
    """
    large, resampled = with_infinite_masks(large), resampled_mass(small, accepted)
    return torch.where(accepted.all(-1, keepdim=True), small, mixed_rows(small, large, accepted, resampled))


def mixed_rows(small: Tensor, large: Tensor, accepted: Tensor, resampled: Tensor) -> Tensor:
    """Return `mixture` of rows that do not accept every token, for a known `resampled_mass`.

    Args:
        small, large, accepted: as in `mixture`; a mask of ``large`` is ``-inf``.
        resampled: the `resampled_mass`, ``[rows]``.

    >>> small, large = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.2, 0.8]]).log()
    >>> mixed_rows(small, large, torch.tensor([[False, True]]), torch.tensor([0.6])).exp()
    tensor([[0.1200, 0.8800]])
    """
    kept = with_infinite_masks(small).masked_fill(~accepted, -torch.inf)
    mixed = torch.logaddexp(kept, large + resampled.log()[:, None])
    return torch.where(accepted.any(-1, keepdim=True), mixed, large)


def resampled_mass(small: Tensor, accepted: Tensor) -> Tensor:
    """Return the probability that a token of the small model is rejected and the large model is sampled instead.

    Args:
        small: sampling distribution of the small model as log-probabilities, ``[rows, vocab]``.
        accepted: the accepted set, bool ``[rows, vocab]``.

    Returns:
        Probabilities, ``[rows]``.

    >>> resampled_mass(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[True, False]]))
    tensor([0.2500])
    """
    return small.exp().masked_fill_(accepted, 0).sum(-1)


def cascade_distribution(
    rule: TokenRule,
    small: Tensor,
    large: Tensor,
    *,
    alpha: float,
    sampling_small: Tensor | None = None,
    sampling_large: Tensor | None = None,
) -> Tensor:
    """Return the next-token distribution of a cascade: `mixture` over the set of `accepted_tokens`.

    Args:
        rule, small, large, alpha, sampling_small, sampling_large: as in `accepted_tokens`.

    Returns:
        Log-probabilities, ``[rows, vocab]``.

    >>> small, large = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.2, 0.8]]).log()
    >>> cascade_distribution("token_v3", small, large, alpha=0.5).exp()
    tensor([[0.1200, 0.8800]])
    """
    q, p = (small if sampling_small is None else sampling_small), (large if sampling_large is None else sampling_large)
    return mixture(q, p, accepted_tokens(rule, small, large, alpha=alpha, sampling_small=q, sampling_large=p))


def tempered(logp: Tensor, temperature: float) -> Tensor:
    """Return a distribution at a sampling temperature.

    Args:
        logp: log-probabilities, ``[rows, vocab]``.
        temperature: >= 0. 1 returns ``logp`` itself. 0 puts all probability on the most likely token; the first
            of several equally likely tokens is chosen.

    Returns:
        Log-probabilities, ``[rows, vocab]``.

    >>> tempered(torch.tensor([[0.2, 0.8]]).log(), 0.0).exp()
    tensor([[0., 1.]])
    """
    if is_neutral(temperature, 1):
        return logp
    if is_neutral(temperature, 0):
        one_hot = torch.full_like(logp, -torch.inf)
        return one_hot.scatter(-1, logp.argmax(-1, keepdim=True), 0.0)
    return (logp / temperature).log_softmax(-1)


def restricted_to_support(logits: Tensor, scores: Tensor) -> Tensor:
    """Return the distribution of ``logits`` on the tokens that ``scores`` leaves possible.

    Args:
        logits: logits or log-probabilities of another model, ``[rows, vocab]``.
        scores: the scores to restrict to, ``[rows, vocab]``; ``-inf`` marks impossible tokens.

    Returns:
        fp32 log-probabilities, ``[rows, vocab]``. A row in which ``logits`` and ``scores`` share no possible
        token gets the distribution of ``scores``.

    >>> scores = torch.tensor([[0.0, -torch.inf, 0.0]])
    >>> restricted_to_support(torch.tensor([[1.0, 9.0, 1.0]]), scores).exp()
    tensor([[0.5000, 0.0000, 0.5000]])
    """
    own, logits = log_probabilities(scores), logits.float()
    # A row that is masked as a whole, with -inf or with finfo.min, is far below this bound and has no possible token.
    largest = logits.amax(-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).min / 4)
    possible = torch.threshold_(logits - largest, LEAST_DIFFERENCE, -torch.inf).masked_fill_(
        own == -torch.inf, -torch.inf
    )
    disjoint = possible.amax(-1, keepdim=True) == -torch.inf
    return mark_masked(torch.where(disjoint, own, possible).log_softmax(-1))


def replaced_rows(scores: Tensor, other: Tensor, replaced: Tensor) -> Tensor:
    """Return the scores with some rows replaced by another model's distribution on the same tokens.

    Args:
        scores: scores of the generating model, ``[rows, vocab]``.
        other: logits of the other model, ``[rows, vocab]``.
        replaced: the rows to replace, bool ``[rows]``.

    Returns:
        ``[rows, vocab]``, in the dtype of the scores: `restricted_to_support` of ``other`` in replaced rows, ``scores``
        elsewhere.

    >>> scores, other = torch.zeros(2, 2), torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    >>> replaced_rows(scores, other, torch.tensor([False, True])).exp()
    tensor([[1.0000, 1.0000],
            [0.9000, 0.1000]])
    """
    return torch.where(replaced[:, None], restricted_to_support(other, scores).to(scores.dtype), scores)
