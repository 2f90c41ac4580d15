"""CoRE: an ensemble that trusts tokens on which models agree, and models that agree and are sure.

Consistency for Robust test-time LLM Ensemble, arXiv:2510.13855 (Findings of EACL 2026). With p the main
model's probabilities and q_i a helper's, translated into the main vocabulary:

- reference: p* = the mean of p and the q_i; disagreement: delta_i = abs(q_i - p*), elementwise.
- token consistency: s_i = f(delta_i), f falling from 1 (a low-pass filter; `kernel`).
- model consistency: m_i = sum_v s_i(v) / H(q_i), agreement over entropy in nats; the same for the main model.
- p_ensemble = m_0 p + sum_i m_i q_i s_i, with the m_i normalised over the models.

The paper's figure and the released code differ; `PRESETS` has both. The code also raises the main model's
weight to at least that of all helpers together, scales token scores to mean 1, leaves a different spelling
of the main model's choice alone (`guard`), and for multiple choice drops the token filter and the agreement.

Departures: scores are summed over one support for all models (the code counts up to twice as many tokens for
a helper as for the main model); an entropy counts as at least `SURE` nats (the code divides by 1e-12);
full agreement under ``reciprocal`` is consistency 1 (the code yields NaN); a helper with no translated mass
has no say; a tie goes to the main model (the code's goes to the lowest id); the result is normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["linear", "rbf", "power", "reciprocal", "sigmoid"]
Preset = Literal["released", "choice", "published"]

SHARPNESS: dict[str, float] = {"linear": 1, "rbf": 2, "power": 5, "reciprocal": 1, "sigmoid": 5}  # the paper's
SURE = 1e-3  # nats; a surer model than this weighs no more
SUPPORT = 1e-12  # a probability above this counts as support, as in the released code
ROUNDING = 1e-6
TIE = 1e-6  # by which the main model's weight is raised at the end


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the paper's figure and the released code decide differently.

    Attributes:
        main_floor: least weight of the main model, 0 to 1.
        filters: multiply helpers' tokens by their consistency.
        agreement: a model's score is agreement over entropy; else one over entropy.
        mean_one: scale a model's token scores to mean 1 over the support.
        guard: keep the main model's row where the choice is a longer or shorter spelling of its own, or it ends.
        topk: tokens kept of each model before translation; None: all.
    """

    main_floor: float
    filters: bool
    agreement: bool
    mean_one: bool
    guard: bool
    topk: int | None


PRESETS: dict[str, Setting] = {
    # The released code on generation tasks.
    "released": Setting(main_floor=0.5, filters=True, agreement=True, mean_one=True, guard=True, topk=10),
    # The released code on multiple choice.
    "choice": Setting(main_floor=0.5, filters=False, agreement=False, mean_one=True, guard=False, topk=10),
    # The overview figure.
    "published": Setting(main_floor=0.0, filters=True, agreement=True, mean_one=False, guard=False, topk=10),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Consensus:
    """The ensemble and how it came about.

    Attributes:
        logp: normalised log-probabilities, fp32 (fp64 of fp64), ``[rows, vocab]``.
        weights: of the models, main first, ``[models, rows]``; they sum to 1.
        disagreement: total variation of each helper from the reference, ``[helpers, rows]``, 0 to 1.
        filtered: how many supported tokens each helper had cut to less than half, ``[helpers, rows]``.
    """

    logp: Tensor
    weights: Tensor
    disagreement: Tensor
    filtered: Tensor


def core(
    main: Tensor,
    helpers: Sequence[Tensor] | Tensor,
    *,
    kernel: Kernel = "rbf",
    main_floor: float = 0.5,
    filters: bool = True,
    agreement: bool = True,
    mean_one: bool = True,
    sharpness: float | None = None,
) -> Tensor:
    """CoRE over probabilities; the settings are those of the released code on generation tasks.

    Args:
        main: probabilities of the main model, ``[rows, vocab]``, each row summing to 1.
        helpers: translated probabilities of each helper, same shape; rows may sum to less, also to 0.
        kernel: how consistency falls with disagreement; see `token_consistency`.
        main_floor: least weight of the main model, 0 to 1; 0 in the paper, 1/2 in its code, 1 keeps ``main``.
        filters, agreement, mean_one: see `Setting`.
        sharpness: of the kernel; None: `SHARPNESS`.

    Returns:
        Normalised log-probabilities, fp32 (fp64 of fp64), ``[rows, vocab]``. A row on which every helper equals the
        main model, and one on which no helper has a say, is the main model's, bit for bit before the logarithm.

    Example:
        >>> import torch
        >>> main, helper = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.1, 0.9, 0.0]])
        >>> core(main, [helper], kernel="linear").exp().round(decimals=2)
        tensor([[0.3000, 0.7000, 0.0000]])
    """
    return consensus(
        main,
        helpers,
        kernel=kernel,
        main_floor=main_floor,
        filters=filters,
        agreement=agreement,
        mean_one=mean_one,
        sharpness=sharpness,
    ).logp


def consensus(
    main: Tensor,
    helpers: Sequence[Tensor] | Tensor,
    *,
    kernel: Kernel,
    main_floor: float,
    filters: bool,
    agreement: bool,
    mean_one: bool,
    sharpness: float | None = None,
) -> Consensus:
    """Return `core` together with its weights and disagreements."""
    whole = torch.stack([main, *helpers])
    whole = whole.to(torch.promote_types(whole.dtype, torch.float32))  # [models, rows, vocab]
    columns = _columns(whole)
    p = whole.gather(-1, columns.expand(len(whole), -1, -1))  # the same tokens, but for all that nobody says
    speaks = p.sum(-1, keepdim=True) > SUPPORT  # [models, rows, 1]
    support = (p > SUPPORT).any(0)  # [rows, vocab]
    reference = p.sum(0) / speaks.sum(0).clamp_min(1)  # [rows, vocab]
    delta = (p - reference).abs() * speaks
    score = token_consistency(delta, kernel, sharpness) * support  # [models, rows, vocab]
    total = score.sum(-1)  # [models, rows]
    certainty = 1 / entropy(p).clamp_min(SURE)
    weight = (total * certainty if agreement else certainty) * speaks.squeeze(-1)
    weight = _anchored(weight, main_floor)
    if mean_one:
        score = score * ((score > 0).sum(-1) / total.clamp_min(SUPPORT))[..., None]
    parts = torch.cat([p[:1], p[1:] * score[1:] if filters else p[1:]])
    mixed = (weight[..., None] * parts).sum(0) + TIE * p[0]
    alone = ((p[1:] == p[:1]).all(-1) | ~speaks[1:, :, 0]).all(0)  # [rows]: nobody says anything else
    logp = torch.where(alone[:, None], p[0], mixed / mixed.sum(-1, keepdim=True)).log()
    return Consensus(
        logp=torch.full_like(whole[0], -torch.inf).scatter_(-1, columns, logp),
        weights=weight,
        disagreement=0.5 * delta[1:].sum(-1),
        filtered=((score[1:] < 0.5) & (p[1:] > SUPPORT)).sum(-1) if filters else torch.zeros_like(total[1:]),
    )


def _columns(p: Tensor) -> Tensor:
    """Ids of all tokens that some model says in a row, and of one more that none does, ``[rows, tokens]``.

    Distributions cut to their likeliest tokens leave few of them. The one more stands for all the others: it has
    no disagreement.
    """
    said = (p > 0).any(0)  # [rows, vocab]
    most = min(int(said.sum(-1).max()) + 1, p.shape[-1])
    return said.float().topk(most, dim=-1).indices


def token_consistency(delta: Tensor, kernel: Kernel, sharpness: float | None = None) -> Tensor:
    """Consistency of a token from its disagreement delta (0 to 1): 1 at 0, falling.

    With a the sharpness: ``linear`` 1 - delta; ``rbf`` (exp(-a delta) - exp(-a)) / (1 - exp(-a)), whose exponent
    is linear in delta in the released code; ``power`` (1 - delta)**a; ``reciprocal`` 1 / (1 + a delta), stretched
    to [0, 1] over all models and tokens of a row; ``sigmoid`` 1 - sigmoid(a (delta - 1/2)).

    Args:
        delta: ``[models, rows, vocab]``.
    """
    a = SHARPNESS[kernel] if sharpness is None else sharpness
    if kernel == "linear":
        return 1 - delta
    if kernel == "rbf":
        return ((-a * delta).exp() - math.exp(-a)) / -math.expm1(-a)
    if kernel == "power":
        return (1 - delta) ** a
    if kernel == "sigmoid":
        return 1 - torch.sigmoid(a * (delta - 0.5))
    raw = 1 / (1 + a * delta)
    least, most = raw.amin((0, 2), keepdim=True), raw.amax((0, 2), keepdim=True)  # [1, rows, 1]
    spread = most - least
    apart = spread > ROUNDING
    stretched = (raw - least) / torch.where(apart, spread, 1)
    # The lowest is 0: what rounding leaves there must not be scaled to mean 1.
    return torch.where(apart, stretched.masked_fill(raw - least < ROUNDING, 0), 1.0)


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of ``[..., vocab]`` weights after normalising them; 0 where there are none."""
    p = p / p.sum(-1, keepdim=True).clamp_min(SUPPORT)
    negative: Tensor = torch.special.xlogy(p, p).sum(-1)
    return -negative


def _anchored(weight: Tensor, main_floor: float) -> Tensor:
    """Normalise over the models and raise the main model's weight to the floor."""
    helpers = weight[1:].sum(0)  # [rows]
    silent = helpers <= 0
    share = torch.where(silent, 1.0, weight[0] / (weight[0] + helpers).clamp_min(SUPPORT)).clamp_min(main_floor)
    return torch.cat([share[None], (1 - share) * weight[1:] / torch.where(silent, 1.0, helpers)])
