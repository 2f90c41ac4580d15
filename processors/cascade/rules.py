"""Deferral: when a small model's word stands, and when a large one is asked.

Token level: speculative cascades, arXiv:2405.19261 (equations of its section 4). Each rule names the tokens
whose draw from the small law q stands, A; what falls outside is drawn again from the large law p:

    pi(v) = q(v) [v in A] + p(v) sum_{u not in A} q(u)

A rule that looks at the whole row has all tokens or none in A, so pi is q or p. The decision is taken on
the laws as the models give them; q and p themselves may be tempered.

Sequence level: language model cascades, arXiv:2404.10136, section 3. A score of the emitted tokens'
log-probabilities; the outputs that score below a threshold are deferred.

All values are natural logarithms of probabilities; dtypes are kept, so float64 in gives float64 out.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.params import is_neutral
from logitkit.processors.engine.divergences import js_bits

TokenRule = Literal["chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "js"]
SequenceRule = Literal["sum", "average", "quantile"]
TOKEN_RULES: tuple[TokenRule, ...] = ("chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "js")


def trusted(
    rule: TokenRule,
    small: Tensor,
    large: Tensor,
    *,
    alpha: float,
    drawn_small: Tensor | None = None,
    drawn_large: Tensor | None = None,
) -> Tensor:
    """Say which tokens' draws from the small law stand: the set A.

    ``chow``: max q >= 1 - alpha. ``diff``: max q >= max p - alpha. ``opt``: max q >= max p - alpha TV(p, q).
    ``token_v1``: q(v) >= max p - alpha. ``token_v2``: p(v) >= max p - alpha. ``token_v3``: p(v) >= (1 - alpha) max p.
    ``js``: the Jensen-Shannon divergence of q and p is at most alpha, in bits.

    Args:
        rule: one of `TOKEN_RULES`.
        small, large: log-probabilities that the rule looks at, ``[rows, vocab]``.
        alpha: 0 to 1, how much the small model is trusted. 1 trusts it with everything (``opt``: where the
            drawn laws are those that the rule looks at). 0 is the large model under ``chow``, where no
            small probability is 1, and under ``token_v2``, ``token_v3`` with greedy laws; not under the others:
            there a small model that is surer than the large one keeps its word.
        drawn_small, drawn_large: the laws that tokens are drawn from, whose total variation ``opt`` weighs;
            by default the same.

    Returns:
        ``[rows, vocab]``, True where the small draw stands. Ties stand.
    """
    if is_neutral(alpha, 1) and rule != "opt":
        return torch.ones_like(small, dtype=torch.bool)
    best_small, best_large = small.amax(-1, keepdim=True).exp(), large.amax(-1, keepdim=True).exp()  # [rows, 1]
    if rule == "token_v1":
        return small.exp() >= best_large - alpha
    if rule == "token_v2":
        return large.exp() >= best_large - alpha
    if rule == "token_v3":
        return large >= large.amax(-1, keepdim=True) + math.log1p(-alpha)
    if rule == "chow":
        whole = best_small >= 1 - alpha
    elif rule == "diff":
        whole = best_small >= best_large - alpha
    elif rule == "opt":
        q, p = (small if drawn_small is None else drawn_small), (large if drawn_large is None else drawn_large)
        variation = (q.exp() - p.exp()).clamp_min(0).sum(-1, keepdim=True)
        # At alpha = 1 both sides can be equal in exact arithmetic: rounding must not decide.
        whole = best_small >= best_large - alpha * variation - 16 * torch.finfo(small.dtype).eps
    else:
        whole = js_bits(small, large)[:, None] <= alpha
    return whole.expand_as(small)


def settled(rule: TokenRule, small: Tensor, *, alpha: float, drawn_small: Tensor | None = None) -> Tensor:
    """Say which rows are the small model's whatever the large one would say, ``[rows]``.

    No probability exceeds 1, so ``diff`` is settled where max q >= 1 - alpha, and ``token_v1`` where all that
    can be drawn has q(v) >= 1 - alpha. ``chow`` is settled by the small model alone, either way.

    Args:
        rule, small, alpha: as in `trusted`.
        drawn_small: the law that tokens are drawn from, ``[rows, vocab]``; by default ``small``.
    """
    if is_neutral(alpha, 1) and rule != "opt":
        return torch.ones_like(small[:, 0], dtype=torch.bool)
    if rule in ("chow", "diff"):
        return small.amax(-1).exp() >= 1 - alpha
    if rule == "token_v1":
        drawn = (small if drawn_small is None else drawn_small) > -torch.inf
        return (~drawn | (small.exp() >= 1 - alpha)).all(-1)
    return torch.zeros_like(small[:, 0], dtype=torch.bool)


def mixture(small: Tensor, large: Tensor, stands: Tensor) -> Tensor:
    """The law of a token drawn from the small law where that stands, else drawn again: log pi.

    Args:
        small, large: the laws that are drawn from, as log-probabilities, ``[rows, vocab]``.
        stands: the set A, ``[rows, vocab]``.

    Returns:
        ``[rows, vocab]``, normalised. A row with all of A is ``small`` itself, one with none ``large``, bit for bit.
    """
    kept = torch.where(stands, small, -torch.inf)
    mixed = torch.logaddexp(kept, large + deferred(small, stands).log()[:, None])
    mixed = torch.where((kept == -torch.inf) & (large == -torch.inf), -torch.inf, mixed)
    mixed = torch.where(stands.any(-1, keepdim=True), mixed, large)
    return torch.where(stands.all(-1, keepdim=True), small, mixed)


def deferred(small: Tensor, stands: Tensor) -> Tensor:
    """The probability that the token is drawn again from the large law, ``[rows]``."""
    return torch.where(stands, 0, small.exp()).sum(-1)


def token_law(
    rule: TokenRule,
    small: Tensor,
    large: Tensor,
    *,
    alpha: float,
    drawn_small: Tensor | None = None,
    drawn_large: Tensor | None = None,
) -> Tensor:
    """The law pi of one token under a rule: `mixture` over `trusted`; arguments as there."""
    q, p = (small if drawn_small is None else drawn_small), (large if drawn_large is None else drawn_large)
    return mixture(q, p, trusted(rule, small, large, alpha=alpha, drawn_small=q, drawn_large=p))


def tempered(logp: Tensor, temperature: float) -> Tensor:
    """The law at a temperature, as log-probabilities; at 0 all mass is on the likeliest token (the first of equals).

    Args:
        logp: log-probabilities, ``[rows, vocab]``.
        temperature: >= 0; 1 returns ``logp``.
    """
    if is_neutral(temperature, 1):
        return logp
    if is_neutral(temperature, 0):
        cold = torch.full_like(logp, -torch.inf)
        return cold.scatter(-1, logp.argmax(-1, keepdim=True), 0.0)
    return (logp / temperature).log_softmax(-1)


def restricted(logits: Tensor, scores: Tensor) -> Tensor:
    """The law of ``logits`` on the tokens that ``scores`` leaves possible, as fp32 log-probabilities.

    Where no such token is left, the law of ``scores``.
    """
    possible = logits.float().masked_fill(scores == -torch.inf, -torch.inf)
    nothing = (possible == -torch.inf).all(-1, keepdim=True)
    return torch.where(nothing, scores.float(), possible).log_softmax(-1)


def sequence_score(logps: Tensor, mask: Tensor, rule: SequenceRule, *, alpha: float = 0.0) -> Tensor:
    """How much a small model's outputs are to be trusted; the lowest are deferred first.

    ``sum``: the log-probability of the output, which falls with its length. ``average``: per token, which
    over-corrects. ``quantile``: of the token log-probabilities; 0 is the worst token.

    Args:
        logps: log-probabilities of the emitted tokens, ``[rows, tokens]``.
        mask: True where a token was emitted, same shape. Whether the end token counts is the caller's choice.
        rule: the score.
        alpha: level of the quantile, 0 to 1, interpolated linearly.

    Returns:
        ``[rows]``. An output without tokens scores -inf: nothing speaks for it.

    Raises:
        ParameterError: alpha outside its range, or NaN among the emitted tokens.
    """
    if not 0 <= alpha <= 1:
        raise ParameterError("sequence_score", "alpha", "a finite number >= 0 and <= 1", alpha)
    if bool((torch.isnan(logps) & mask).any()):
        raise ParameterError("sequence_score", "logps", "numbers", "NaN", "check the model's dtype")
    count = mask.sum(-1)
    if rule == "quantile":
        if not logps.shape[1]:
            return torch.full_like(count, -torch.inf, dtype=logps.dtype)
        score = torch.nanquantile(logps.masked_fill(~mask, torch.nan), alpha, dim=-1)
    else:
        total = logps.masked_fill(~mask, 0).sum(-1)
        score = total if rule == "sum" else total / count.clamp_min(1)
    return score.masked_fill(count == 0, -torch.inf)


def threshold_for_rate(scores: Tensor, rate: float) -> float:
    """The threshold below which at most this share of the scores lies, as many as ties allow.

    Args:
        scores: of a calibration set, ``[items]``; a row is deferred when its score is below the threshold.
        rate: 0 to 1; at 1 the threshold is infinite.

    Raises:
        ParameterError: an empty calibration set, NaN, or a rate outside its range.
    """
    if not scores.numel():
        raise ParameterError("threshold_for_rate", "scores", "of at least one item", "an empty calibration set")
    if bool(torch.isnan(scores).any()):
        raise ParameterError("threshold_for_rate", "scores", "numbers", "NaN")
    if not 0 <= rate <= 1:
        raise ParameterError("threshold_for_rate", "rate", "a finite number >= 0 and <= 1", rate)
    place = math.floor(rate * len(scores) + 1e-9)
    return math.inf if place >= len(scores) else float(scores.sort().values[place])
