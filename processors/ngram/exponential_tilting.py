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

from logitkit.processors.engine.log_probabilities import probabilities
from logitkit.processors.ngram.formulas import js_bits_per_mass, normalizer


@dataclass(frozen=True, eq=False)
class Places:
    """Some tokens of each row, as many for each row; the others of a row are absent.

    Attributes:
        tokens: ids, ``[rows, n]``; 0 where absent.
        present: whether there is a token, bool ``[rows, n]``. The present tokens of a row differ.
        flat: positions in flattened scores, ``[rows * n]``, and the number of all scores where no token is present.
            Buffers with one number more than the scores take what is written there.
    """

    tokens: Tensor
    present: Tensor
    flat: Tensor

    @classmethod
    def of(cls, tokens: Tensor, present: Tensor, width: int) -> Places:
        """Return the places of tokens in rows of ``width`` scores.

        Args:
            tokens: ids, ``[rows, n]``, below ``width`` where present.
            present: bool, ``[rows, n]``.
            width: number of scores of a row.

        Example:
            >>> import torch
            >>> Places.of(torch.tensor([[3, 9], [1, 2]]), torch.tensor([[True, False], [True, True]]), 4).flat
            tensor([3, 8, 5, 6])
        """
        tokens, first = tokens * present, torch.arange(0, len(tokens) * width, width, device=tokens.device)[:, None]
        flat = (tokens + first).masked_fill_(~present, len(tokens) * width)
        return cls(tokens, present, flat.flatten())


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedEvidence:
    """Evidence that is the same in every row and at every step, for one width of scores.

    Attributes:
        untouched: ids that never move: special tokens, and ids that the tokenizer does not have.
        ordinary: 0.0 at the untouched ids and 1.0 elsewhere, ``[vocab]``.
        evidence: in nats, ``[vocab]``, or ``[rows, vocab]`` of one step; 0.0 at the untouched ids.
        moves: the evidence times the full weight, limited by the cap; same shape.
        factors: the exponential of the moves; same shape.
        movable: ids that may have evidence in some row, ``[movable]``.
        order_weights: weights of the orders of the table, ``[orders]``.
    """

    untouched: Tensor
    ordinary: Tensor
    evidence: Tensor
    moves: Tensor
    factors: Tensor
    movable: Tensor
    order_weights: Tensor

    @classmethod
    def of(
        cls,
        evidence: Tensor,
        *,
        untouched: Tensor,
        movable: Tensor,
        weight: float,
        cap: float,
        order_weights: Tensor,
    ) -> SharedEvidence:
        """Compute the moves of the evidence.

        Args:
            evidence: in nats, ``[vocab]``.
            untouched: ids that never move.
            movable: ids that may have evidence in some row.
            weight: the full weight.
            cap: largest move, in nats; may be infinite.
            order_weights: weights of the orders of the table, ``[orders]``.
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
            order_weights=order_weights,
        )

    def replaced(self, evidence: Tensor, weight: float, cap: float) -> SharedEvidence:
        """Return a copy with other evidence, ``[rows, vocab]``, in nats."""
        moves = evidence * weight
        moves = moves if math.isinf(cap) else moves.clamp_(-cap, cap)
        return replace(self, evidence=evidence, moves=moves, factors=moves.exp())


@dataclass(frozen=True, eq=False, kw_only=True)
class ExponentialTilting:
    """The evidence of one step for a batch.

    Attributes:
        scores: ``[rows, vocab]``.
        shared: the evidence that all rows share.
        places: tokens at which ``own`` replaces the shared evidence, ``[rows, n]``. None of those present is an
            untouched id. None: no token has evidence of its own.
        own: the evidence at the places, ``[rows, n]``, in nats; finite where absent.
        weight: the full weight, with which ``shared`` was computed.
        cap: largest move of a score, in nats; may be infinite.
        keep: whether the untouched tokens keep their probability; otherwise they keep their scores.
    """

    scores: Tensor
    shared: SharedEvidence
    places: Places | None
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
        if places is None:
            return self._moved_densely(row_weights)
        if row_weights is None:
            moves, factors, own = self.shared.moves, self.shared.factors, self._capped(self.own * self.weight)
        else:
            moves = self._capped(self.shared.evidence * row_weights)  # [rows, vocab]
            factors, own = moves.exp(), self._capped(self.own * row_weights)
        flat = self.scores.new_empty(self.scores.numel() + 1)  # the last takes what belongs to no place
        mass = flat[:-1].view(self.scores.shape)
        shift = None
        if self.keep:
            mass.copy_(self.scores.softmax(-1)).index_fill_(1, untouched, 0.0)
            before = mass.sum(-1)
            flat[-1:].zero_()
            moved_mass = (flat[places.flat].view(own.shape) * own.exp()).sum(-1)
            flat.index_fill_(0, places.flat, 0.0)
            after = mass @ factors if factors.ndim == 1 else (mass * factors).sum(-1)
            shift = normalizer(before, after + moved_mass)
        result = torch.add(self.scores, moves, out=mass)  # allocating a new tensor would take longer than the addition
        flat.index_copy_(0, places.flat, own.add_(self.scores.gather(1, places.tokens)).flatten())
        if shift is None:
            return result
        result += shift
        return result.index_copy_(1, untouched, self.scores.index_select(1, untouched))

    def _moved_densely(self, row_weights: Tensor | None) -> Tensor:
        """Return what `moved` returns where every token has evidence of its own, in few operations."""
        shared = self.shared
        moves = shared.moves if row_weights is None else self._capped(shared.evidence * row_weights)
        result = self.scores + moves
        if not self.keep:
            return result
        factors, p = shared.factors if row_weights is None else moves.exp(), probabilities(self.scores)
        shift = normalizer(p @ shared.ordinary, (p * factors) @ shared.ordinary)
        return result.addcmul_(shift, shared.ordinary)

    def divergence(self) -> Callable[[Tensor], Tensor]:
        """Return a function from weights ``[rows, 1]`` to Jensen-Shannon divergences of the moves, ``[rows]``, in bits.

        The function computes on the movable tokens only.
        """
        flat = self.scores.new_empty(self.scores.numel() + 1)
        evidence = flat[:-1].view(self.scores.shape).copy_(self.shared.evidence)
        if self.places is not None:
            flat.index_copy_(0, self.places.flat, self.own.flatten())
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
