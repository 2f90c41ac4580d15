"""Deferral scores of whole outputs, and thresholds for them.

Source: language model cascades, arXiv:2404.10136, section 3. An output of the small model is scored from the
log-probabilities of its tokens. Outputs that score below a threshold are generated again by a larger model.
All log-probabilities are in nats.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from logitkit.errors import ParameterError

SequenceRule = Literal["sum", "average", "quantile"]
SEQUENCE_RULES: tuple[SequenceRule, ...] = get_args(SequenceRule)


def sequence_score(logps: Tensor, mask: Tensor, rule: SequenceRule, *, alpha: float = 0.0) -> Tensor:
    """Score outputs of a small model; the outputs with the lowest scores are deferred first.

    ``sum`` is the log-probability of the output and falls with its length. ``average`` is the sum divided by the
    number of tokens. ``quantile`` is a quantile of the token log-probabilities; level 0 is the least likely token.

    Args:
        logps: log-probabilities of the emitted tokens, nats, ``[rows, tokens]``.
        mask: True for emitted tokens, bool ``[rows, tokens]``. The caller decides whether the end token counts.
        rule: one of `SEQUENCE_RULES`.
        alpha: level of the quantile, 0 to 1, with linear interpolation.

    Returns:
        ``[rows]``. An output without tokens scores ``-inf``.

    Raises:
        ParameterError: ``alpha`` is outside its range, or an emitted token has log-probability NaN.

    >>> logps, mask = torch.tensor([[-1.0, -3.0]]), torch.tensor([[True, True]])
    >>> [float(sequence_score(logps, mask, rule)) for rule in SEQUENCE_RULES]
    [-4.0, -2.0, -3.0]
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
    """Return the threshold that defers as many items as possible without exceeding a rate.

    Args:
        scores: scores of a calibration set, ``[items]``. An item is deferred when its score is below the threshold.
        rate: largest share of deferred items, 0 to 1.

    Returns:
        The threshold. With ties fewer items than the rate may be deferred. At rate 1 the threshold is infinite.

    Raises:
        ParameterError: the calibration set is empty or holds NaN, or the rate is outside its range.

    >>> threshold_for_rate(torch.tensor([-4.0, -3.0, -2.0, -1.0]), 0.5)
    -2.0
    """
    if not scores.numel():
        raise ParameterError("threshold_for_rate", "scores", "of at least one item", "an empty calibration set")
    if bool(torch.isnan(scores).any()):
        raise ParameterError("threshold_for_rate", "scores", "numbers", "NaN")
    if not 0 <= rate <= 1:
        raise ParameterError("threshold_for_rate", "rate", "a finite number >= 0 and <= 1", rate)
    index = math.floor(rate * len(scores) + 1e-9)  # without the margin 0.3 * 10 would be rounded down to 2
    return math.inf if index >= len(scores) else float(scores.sort().values[index])
