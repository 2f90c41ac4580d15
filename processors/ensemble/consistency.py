"""CoRE: an ensemble that weighs tokens by agreement and models by agreement and certainty.

Consistency for Robust test-time LLM Ensemble, arXiv:2510.13855 (Findings of EACL 2026). With p the main model's
probabilities and q_i a helper's probabilities, translated into the main vocabulary:

- reference: p* = the mean of p and all q_i. Disagreement: delta_i = abs(q_i - p*), for each token.
- token consistency: s_i = f(delta_i), where f falls from 1 (a low-pass filter; see `token_consistency`).
- model consistency: m_i = sum_v s_i(v) / H(q_i), the agreement divided by the entropy in nats; the same for p.
- p_ensemble = m_0 p + sum_i m_i q_i s_i, with the m_i normalised over the models.

The overview figure of the paper and the released code differ; `PRESETS` has both. The released code also raises the
main model's weight to at least the weight of all helpers together, scales token scores to mean 1, and keeps the main
model's distribution where the ensemble only spells the main model's choice differently
(`logitkit.processors.ensemble.spelling_guard`). For multiple choice the code leaves out the token filter and the
agreement.

Token scores are summed over the support of a model (``support``). In the released code (``own``), the support of the
main model is its own tokens, and the support of a helper is the helper's tokens and the main model's, up to twice as
many; a helper therefore reaches a larger agreement. With ``union``, the tokens of all models are the support of every
model. The figure does not say which tokens are summed over, so the presets all take the support of the code.

Departures from the released code:

- An entropy counts as at least `LEAST_ENTROPY` nats; the code divides by the entropy plus 1e-12.
- Under ``reciprocal``, full agreement has consistency 1; the code yields NaN.
- A helper without translated probability has weight 0.
- Of equally probable tokens, the main model's choice wins; in the code, the lowest id wins.
- The result is normalised.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kernel = Literal["linear", "rbf", "power", "reciprocal", "sigmoid"]
Support = Literal["own", "union"]
PresetName = Literal["released", "choice", "published"]

SHARPNESS: dict[str, float] = {"linear": 1, "rbf": 2, "power": 5, "reciprocal": 1, "sigmoid": 5}  # of the paper
LEAST_ENTROPY = 1e-3  # nats; a model with less entropy has no more weight
SUPPORT = 1e-12  # a probability above this belongs to the support, as in the released code
EPSILON = 1e-12  # least divisor
ROUNDING = 1e-6  # differences below this are rounding errors
TIE = 1e-6  # added to the main model's weight, so that it wins ties


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The parts of the formula that the figure and the released code treat differently.

    Attributes:
        filters: multiply the probabilities of helpers by their token consistency.
        agreement: the score of a model is its agreement divided by its entropy; else 1 divided by its entropy.
        mean_one: scale the token scores of a model to mean 1 over the support.

    >>> Variant(filters=False)
    Variant(filters=False, agreement=True, mean_one=True)
    """

    filters: bool = True
    agreement: bool = True
    mean_one: bool = True


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of one published form of CoRE.

    Attributes:
        main_floor: least weight of the main model, 0 to 1.
        variant: parts of the formula.
        guard: keep the main model's row where the ensemble only spells the main model's choice differently, or where
            the main model ends the text.
        topk: number of likeliest tokens of each model to use; None: all.
        support: tokens over which the scores of a model are summed: ``own`` or ``union``.

    >>> PRESETS["released"].main_floor, PRESETS["published"].main_floor
    (0.5, 0.0)
    """

    main_floor: float
    variant: Variant
    guard: bool
    topk: int | None
    support: Support = "own"

    def replaced(self, **settings: float | bool | str | None) -> Preset:
        """Return the preset with some settings replaced; None keeps a setting unchanged.

        Args:
            settings: fields of `Preset` and of its `Variant`, by name.

        >>> PRESETS["released"].replaced(main_floor=0.0, filters=False, guard=None).variant.filters
        False
        """
        values: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        parts: dict[str, Any] = {
            name: values.pop(name) for name in ("filters", "agreement", "mean_one") if name in values
        }
        return dataclasses.replace(self, variant=dataclasses.replace(self.variant, **parts), **values)


PRESETS: dict[PresetName, Preset] = {
    # The released code on generation tasks.
    "released": Preset(main_floor=0.5, variant=Variant(), guard=True, topk=10),
    # The released code on multiple choice.
    "choice": Preset(main_floor=0.5, variant=Variant(filters=False, agreement=False), guard=False, topk=10),
    # The overview figure.
    "published": Preset(main_floor=0.0, variant=Variant(mean_one=False), guard=False, topk=10),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Consensus:
    """The ensemble's distribution and the quantities behind it.

    Attributes:
        logp: normalised log-probabilities in nats, fp32 (fp64 for fp64 inputs), ``[rows, vocab]``.
        weights: weights of the models, main first, ``[models, rows]``; they sum to 1.
        disagreement: total variation distance of each helper from the reference, 0 to 1, ``[helpers, rows]``.
        filtered: number of supported tokens of each helper whose consistency is below 1/2, ``[helpers, rows]``.

    >>> result = consensus(torch.tensor([[1.0, 0.0]]), [torch.tensor([[0.0, 1.0]])], kernel="linear")
    >>> result.weights.tolist(), result.disagreement.tolist()
    ([[0.5], [0.5]], [[0.5]])
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
    support: Support = "own",
    threshold: float = SUPPORT,
    sharpness: float | None = None,
    variant: Variant = PRESETS["released"].variant,
) -> Tensor:
    """Return the CoRE ensemble of probabilities; the defaults are those of the released code on generation tasks.

    Args:
        main: probabilities of the main model, ``[rows, vocab]``; each row sums to 1.
        helpers: probabilities of each helper in the main vocabulary, same shape; a row may sum to less than 1, also
            to 0.
        kernel: how consistency falls with disagreement; see `token_consistency`.
        main_floor: least weight of the main model, 0 to 1: 0 in the figure, 1/2 in the code; 1 returns ``main``.
        support: tokens over which token scores are summed. ``own``: the main model's tokens for the main model, and
            those of the helper and of the main model for a helper. ``union``: the tokens of all models for each.
        threshold: a probability above this belongs to the support.
        sharpness: sharpness of the kernel, ``> 0``; None: the paper's, in `SHARPNESS`.
        variant: parts of the formula; see `Variant`.

    Returns:
        Normalised log-probabilities in nats, fp32 (fp64 for fp64 inputs), ``[rows, vocab]``. Where every helper
        equals the main model or has no probability, the row is the logarithm of the main model's, bit for bit.

    >>> main, helper = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.1, 0.9, 0.0]])
    >>> core(main, [helper], kernel="linear").exp().round(decimals=2)
    tensor([[0.3000, 0.7000, 0.0000]])
    """
    return consensus(
        main,
        helpers,
        kernel=kernel,
        main_floor=main_floor,
        support=support,
        threshold=threshold,
        sharpness=sharpness,
        variant=variant,
    ).logp


def consensus(
    main: Tensor,
    helpers: Sequence[Tensor] | Tensor,
    *,
    kernel: Kernel = "rbf",
    main_floor: float = 0.5,
    support: Support = "own",
    threshold: float = SUPPORT,
    sharpness: float | None = None,
    variant: Variant = PRESETS["released"].variant,
) -> Consensus:
    """Return the result of `core` together with its weights and disagreements; arguments as there.

    >>> main, helper = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]])
    >>> consensus(main, [helper]).weights.tolist()
    [[0.5], [0.5]]
    """
    whole = torch.stack([main, *helpers])
    whole = whole.to(torch.promote_types(whole.dtype, torch.float32))  # [models, rows, vocab]
    columns = _possible_columns(whole)
    p = whole.gather(-1, columns.expand(len(whole), -1, -1))  # only tokens with probability under some model
    has_mass = p.sum(-1, keepdim=True) > threshold  # [models, rows, 1]
    reference = p.sum(0) / has_mass.sum(0).clamp_min(1)  # [rows, tokens]
    delta = (p - reference).abs() * has_mass
    score = token_consistency(delta, kernel, sharpness) * _support(p > threshold, support)  # [models, rows, tokens]
    total = score.sum(-1)  # [models, rows]
    certainty = 1 / entropy(p).clamp_min(LEAST_ENTROPY)
    weight = (total * certainty if variant.agreement else certainty) * has_mass.squeeze(-1)
    weight = _with_main_floor(weight, main_floor)
    if variant.mean_one:
        score = score * ((score > 0).sum(-1) / total.clamp_min(EPSILON))[..., None]
    parts = torch.cat([p[:1], p[1:] * score[1:] if variant.filters else p[1:]])
    mixed = (weight[..., None] * parts).sum(0) + TIE * p[0]
    only_main = ((p[1:] == p[:1]).all(-1) | ~has_mass[1:, :, 0]).all(0)  # [rows]
    logp = torch.where(only_main[:, None], p[0], mixed / mixed.sum(-1, keepdim=True)).log()
    return Consensus(
        logp=torch.full_like(whole[0], -torch.inf).scatter_(-1, columns, logp),
        weights=weight,
        disagreement=0.5 * delta[1:].sum(-1),
        filtered=((score[1:] < 0.5) & (p[1:] > threshold)).sum(-1) if variant.filters else torch.zeros_like(total[1:]),
    )


def _support(likely: Tensor, support: Support) -> Tensor:
    """Return the tokens over which the scores of each model are summed, bool ``[models, rows, tokens]``.

    Args:
        likely: tokens with a probability under each model, main first, same shape.
        support: ``own`` or ``union``.
    """
    return likely.any(0).expand_as(likely) if support == "union" else likely | likely[:1]


def _possible_columns(p: Tensor) -> Tensor:
    """Return ids of all tokens that some model gives probability in a row, and of one more, ``[rows, tokens]``.

    Distributions cut to their likeliest tokens have few of them. The additional token stands for all others, on
    which the models do not disagree.
    """
    possible = (p > 0).any(0)  # [rows, vocab]
    counts = possible.sum(-1)
    most = min(int(counts.max()) + 1 if len(counts) else 1, p.shape[-1])
    return possible.float().topk(most, dim=-1).indices


def token_consistency(delta: Tensor, kernel: Kernel, sharpness: float | None = None) -> Tensor:
    """Return the consistency of tokens from their disagreement: about 1 at disagreement 0, falling, never negative.

    With sharpness a: ``linear`` is 1 - delta. ``rbf`` is (exp(-a delta) - exp(-a)) / (1 - exp(-a)); its exponent is
    linear in delta, as in the released code. ``power`` is (1 - delta)**a. ``reciprocal`` is 1 / (1 + a delta),
    stretched to [0, 1] over all models and tokens of a row. ``sigmoid`` is 1 - sigmoid(a (delta - 1/2)).

    Args:
        delta: disagreement, 0 to 1, ``[models, rows, vocab]``.
        kernel: name of the function.
        sharpness: a, ``> 0``; None: the paper's, in `SHARPNESS`.

    >>> token_consistency(torch.tensor([[[0.0, 0.25, 1.0]]]), "power", sharpness=2.0)
    tensor([[[1.0000, 0.5625, 0.0000]]])
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
    # The lowest value is 0. A rounding error in its place would later be scaled to mean 1.
    return torch.where(apart, stretched.masked_fill(raw - least < ROUNDING, 0), 1.0)


def entropy(p: Tensor) -> Tensor:
    """Return the entropy in nats of weights ``[..., vocab]`` after normalising them; 0 where all weights are 0.

    >>> entropy(torch.tensor([2.0, 2.0])) == torch.tensor(2.0).log()
    tensor(True)
    """
    p = p / p.sum(-1, keepdim=True).clamp_min(EPSILON)
    negative: Tensor = torch.special.xlogy(p, p).sum(-1)
    return -negative


def _with_main_floor(weight: Tensor, main_floor: float) -> Tensor:
    """Return weights that sum to 1 over the models, with the main model's raised to the floor; ``[models, rows]``."""
    helpers = weight[1:].sum(0)  # [rows]
    no_helper = helpers <= 0
    share = torch.where(no_helper, 1.0, weight[0] / (weight[0] + helpers).clamp_min(EPSILON)).clamp_min(main_floor)
    return torch.cat([share[None], (1 - share) * weight[1:] / torch.where(no_helper, 1.0, helpers)])
