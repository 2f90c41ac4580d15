"""Exponential tilting: multiply each probability of a row by ``exp(weight * evidence)`` and normalise.

Most tokens have the same evidence in every row of a batch; the others have evidence of their own in some rows. One
pass over the scores moves the former and a sparse write moves the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from logitkit.processors.ngram.formulas import js_bits_per_mass, normalizer


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedEvidence:
    """Evidence that is the same in every row and at every step, for one width of scores.

    Attributes:
        untouched: ids that never move: special tokens, and ids that the tokenizer does not have.
        ordinary: 0.0 at the untouched ids and 1.0 elsewhere, ``[vocab]``.
        evidence: in nats, ``[vocab]``; 0.0 at the untouched ids.
        moves: the evidence times the full weight, limited by the cap, ``[vocab]``.
        factors: the exponential of the moves, ``[vocab]``.
        movable: ids that may have evidence in some row, ``[movable]``.
    """

    untouched: Tensor
    ordinary: Tensor
    evidence: Tensor
    moves: Tensor
    factors: Tensor
    movable: Tensor

    @classmethod
    def of(cls, evidence: Tensor, *, untouched: Tensor, movable: Tensor, weight: float, cap: float) -> SharedEvidence:
        """Compute the moves of the evidence.

        Args:
            evidence: in nats, ``[vocab]``.
            untouched: ids that never move.
            movable: ids that may have evidence in some row.
            weight: the full weight.
            cap: largest move, in nats; may be infinite.
        """
        ordinary = torch.ones_like(evidence).index_fill_(0, untouched, 0.0)
        moves = (evidence * weight).clamp_(-cap, cap)
        return cls(
            untouched=untouched,
            ordinary=ordinary,
            evidence=evidence,
            moves=moves,
            factors=moves.exp(),
            movable=movable,
        )

    def cleared(self) -> SharedEvidence:
        """Return a copy in which no token has shared evidence."""
        zeros = torch.zeros_like(self.evidence)
        return replace(self, evidence=zeros, moves=zeros, factors=self.factors.new_ones(()).expand_as(zeros))


@dataclass(frozen=True, eq=False, kw_only=True)
class ExponentialTilting:
    """The evidence of one step for a batch.

    Attributes:
        scores: ``[rows, vocab]``.
        shared: the evidence that all rows share.
        places: positions in the flattened scores at which ``own`` replaces the shared evidence, ``[places]``. None of
            them is an untouched id.
        rows: row of each place, ``[places]``.
        own: the evidence at the places, ``[places]``, in nats.
        weight: the full weight, with which ``shared`` was computed.
        cap: largest move of a score, in nats; may be infinite.
        keep: whether the untouched tokens keep their probability; otherwise they keep their scores.
    """

    scores: Tensor
    shared: SharedEvidence
    places: Tensor
    rows: Tensor
    own: Tensor
    weight: float
    cap: float
    keep: bool

    def moved(self, row_weights: Tensor | None = None) -> Tensor:
        """Return the scores moved by the weighted evidence.

        Args:
            row_weights: ``[rows, 1]``; None: the full weight in all rows.

        Returns:
            a new ``[rows, vocab]`` tensor; impossible tokens stay impossible.
        """
        untouched, places = self.shared.untouched, self.places
        if row_weights is None:
            moves, factors, own = self.shared.moves, self.shared.factors, self._capped(self.own * self.weight)
        else:
            moves = self._capped(self.shared.evidence * row_weights)  # [rows, vocab]
            factors, own = moves.exp(), self._capped(self.own * row_weights[:, 0].index_select(0, self.rows))
        shift, buffer = None, None
        if self.keep:
            mass = self.scores.softmax(-1).index_fill_(1, untouched, 0.0)
            before = mass.sum(-1)
            own_mass = mass.view(-1).index_select(0, places)
            mass.view(-1).index_fill_(0, places, 0.0)
            after = mass @ factors if row_weights is None else (mass * factors).sum(-1)
            shift = normalizer(before, after.index_add_(0, self.rows, own_mass * own.exp()))
            buffer = mass  # allocating a new tensor would take longer than the addition
        result = torch.add(self.scores, moves, out=buffer)
        result.view(-1).index_copy_(0, places, own.add_(self.scores.reshape(-1).index_select(0, places)))
        if shift is None:
            return result
        result += shift
        return result.index_copy_(1, untouched, self.scores.index_select(1, untouched))

    def divergence(self) -> Callable[[Tensor], Tensor]:
        """Return a function from weights ``[rows, 1]`` to Jensen-Shannon divergences of the moves, ``[rows]``, in bits.

        The function computes on the movable tokens only.
        """
        evidence = self.shared.evidence.repeat(self.scores.shape[0], 1)
        evidence.view(-1)[self.places] = self.own
        evidence = evidence[:, self.shared.movable]
        probability = self.scores.float().softmax(-1)
        movable = probability[:, self.shared.movable]  # [rows, movable]
        total = probability @ self.shared.ordinary if self.keep else torch.ones_like(probability[:, 0])
        immovable = (total - movable.sum(-1)).clamp(min=0)[:, None]  # mass of ordinary tokens without evidence

        def bits(row_weights: Tensor) -> Tensor:
            moves = self._capped(evidence * row_weights)
            shift = normalizer(total, (movable * moves.exp()).sum(-1) + immovable[:, 0])
            moved = (movable * js_bits_per_mass((moves + shift).exp())).sum(-1)
            return moved + (immovable * js_bits_per_mass(shift.exp()))[:, 0]

        return bits

    def _capped(self, moves: Tensor) -> Tensor:
        return moves if math.isinf(self.cap) else moves.clamp(-self.cap, self.cap)
