"""Conditions under which a step of a chain acts on a row.

Measures of the main stream use the row's own distribution p; measures of two streams compare p with the distribution q
of the step's second stream, which is then read at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.engine.divergences import Divergence, divergence, refuse_wrong_alpha
from logitkit.processors.engine.log_probabilities import log_probabilities, probabilities

OwnMeasure = Literal["norm", "max", "margin", "entropy", "varentropy"]
PairMeasure = Literal["js", "kl", "reverse_kl", "renyi", "tv", "hellinger"]
GateMeasure = Literal[OwnMeasure, PairMeasure]
OWN_MEASURES: tuple[str, ...] = get_args(OwnMeasure)
PAIR_MEASURES: tuple[str, ...] = get_args(PairMeasure)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition on each row: a measure above a threshold, or below it.

    ``above`` opens the gate where the value is greater, ``below`` where it is at most the threshold. The two are
    complements: at one threshold each row is open under exactly one of them.

    Args:
        measure: ``norm``: the 2-norm of p, 0 to 1. ``max``: the largest probability. ``margin``: the difference of
            the two largest. ``entropy``: nats. ``varentropy``: the variance of -log p under p, nats squared.
            ``js``, ``kl``, ``reverse_kl``, ``renyi``, ``tv``, ``hellinger``: `divergence` of p from q.
        above, below: the threshold; exactly one of them.
        alpha: weight of ``js`` or order of ``renyi``; see `divergence`.

    Raises:
        ParameterError: an unknown measure, both or neither threshold, a threshold that is NaN, or an alpha outside its
            range.

    Example:
        >>> import torch
        >>> gate = Gate(measure="entropy", above=0.6)
        >>> scores = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()  # 0.69 and 0.33 nats
        >>> gate.opens(gate.value(scores))
        tensor([ True, False])
    """

    measure: GateMeasure
    above: float | None = None
    below: float | None = None
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.measure not in get_args(GateMeasure):
            rule = f"one of {', '.join(map(repr, get_args(GateMeasure)))}"
            raise ParameterError("Gate", "measure", rule, self.measure)
        if (self.above is None) == (self.below is None):
            raise ParameterError("Gate", "above", "given, or below instead (exactly one)", (self.above, self.below))
        name, threshold = ("above", self.above) if self.below is None else ("below", self.below)
        if math.isnan(cast(float, threshold)):
            raise ParameterError("Gate", name, "a number", threshold)
        refuse_wrong_alpha("Gate", self.measure, self.alpha)

    @property
    def compares(self) -> bool:
        """Whether the measure compares the row with a second stream."""
        return self.measure in PAIR_MEASURES

    def value(self, scores: Tensor, second: Tensor | None = None) -> Tensor:
        """Return the measure of each row, fp32 ``[rows]``.

        Args:
            scores: logits or log-probabilities of the main stream, ``[rows, vocab]``.
            second: logits of the second stream, same shape; needed by a measure of two streams.

        Raises:
            ParameterError: a measure of two streams without ``second``.
        """
        if not self.compares:
            return own_measure(scores, cast(OwnMeasure, self.measure))
        if second is None:
            raise ParameterError("gate", "second", f"the logits of a second stream for measure {self.measure!r}", None)
        return divergence(scores, second, cast(Divergence, self.measure), self.alpha).float()

    def opens(self, value: Tensor) -> Tensor:
        """Return whether the gate is open at each value of the measure, bool ``[rows]``; NaN opens nothing."""
        return value > self.above if self.below is None else value <= self.below  # type: ignore[operator]


def own_measure(scores: Tensor, measure: OwnMeasure) -> Tensor:
    """Return a measure of how sure each row is; see `Gate`.

    ``norm``, ``max`` and ``margin`` are high where the row is sure, ``entropy`` and ``varentropy`` where it is not.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``; -inf marks an impossible token.

    Returns:
        fp32, ``[rows]``.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
        >>> own_measure(scores, "entropy") / torch.tensor(2.0).log()  # in bits
        tensor([1.5000])
        >>> own_measure(scores, "margin")
        tensor([0.2500])
    """
    if measure in ("entropy", "varentropy"):
        logp = log_probabilities(scores)
        p, surprisal = logp.exp(), logp.neg().masked_fill(logp == -torch.inf, 0)
        entropy = (p * surprisal).sum(-1)
        if measure == "entropy":
            return entropy
        return (p * (surprisal - entropy[:, None]).square()).sum(-1)
    p = probabilities(scores)
    if measure == "norm":
        norm: Tensor = torch.linalg.vector_norm(p, dim=-1)
        return norm
    if measure == "max":
        return p.amax(-1)
    best = torch.nn.functional.pad(p, (0, 1)).topk(2, dim=-1).values  # a vocabulary of one has no second token
    return best[..., 0] - best[..., 1]
