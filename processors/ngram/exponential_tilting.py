"""Moving scores: some tokens up or down, the probability of special tokens kept, and how far a row went.

A processor that adds evidence multiplies each probability by ``exp(move)`` and normalises: it tilts the row.
Most tokens move by an amount that is the same in every row, the rest by amounts of their own, so that one
pass over the scores and a sparse write do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

HALVINGS = 12  # of the strength, in search of a divergence: to 1 / 4096 of the strongest


@dataclass(frozen=True, eq=False, kw_only=True)
class Fixed:
    """What is the same at every step, for one width of scores.

    Attributes:
        untouched: ids that keep their scores: special tokens, and ids that the tokenizer lacks.
        ordinary: 0.0 at those and 1.0 elsewhere, ``[vocab]``.
        shared: evidence that a token has in every row, ``[vocab]``, in nats; 0.0 where untouched.
        moves: what it moves by at full strength, ``[vocab]``.
        grown: the exponential of that.
        moving: ids that may have evidence at all, ``[moving]``.
    """

    untouched: Tensor
    ordinary: Tensor
    shared: Tensor
    moves: Tensor
    grown: Tensor
    moving: Tensor

    @classmethod
    def of(cls, *, untouched: Tensor, shared: Tensor, weight: float, cap: float, moving: Tensor) -> Fixed:
        """Work out the rest."""
        ordinary = torch.ones_like(shared).index_fill_(0, untouched, 0.0)
        moves = (shared * weight).clamp_(-cap, cap)
        return cls(untouched=untouched, ordinary=ordinary, shared=shared, moves=moves, grown=moves.exp(), moving=moving)

    def without_shared(self) -> Fixed:
        """The same, with no evidence that is shared."""
        none = torch.zeros_like(self.shared)
        return replace(self, shared=none, moves=none, grown=self.grown.new_ones(()).expand_as(none))


@dataclass(frozen=True, eq=False, kw_only=True)
class ExponentialTilting:
    """The evidence of one step.

    Attributes:
        scores: ``[rows, vocab]``.
        fixed: what is shared by all rows.
        places: where a row has evidence of its own, in place of the shared: flat, ``[places]``, never untouched.
        rows: the row of each place.
        own: that evidence, ``[places]``, in nats.
        weight: the full strength, which ``fixed`` was made for.
        cap: no score moves by more, in nats.
        keep: whether special tokens keep their probability; otherwise their scores.
    """

    scores: Tensor
    fixed: Fixed
    places: Tensor
    rows: Tensor
    own: Tensor
    weight: float
    cap: float
    keep: bool

    def at(self, strength: Tensor | None = None) -> Tensor:
        """Return the scores moved by ``strength`` times the evidence.

        Args:
            strength: ``[rows, 1]``; None: the weight, in all rows.

        Returns:
            a new ``[rows, vocab]``; what is impossible stays so.
        """
        untouched, places = self.fixed.untouched, self.places
        if strength is None:
            moves, grown, own = self.fixed.moves, self.fixed.grown, self._limited(self.own * self.weight)
        else:
            moves = self._limited(self.fixed.shared * strength)  # [rows, vocab]
            grown, own = moves.exp(), self._limited(self.own * strength[:, 0].index_select(0, self.rows))
        shift, memory = None, None
        if self.keep:
            weights = self.scores.softmax(-1).index_fill_(1, untouched, 0.0)
            before = weights.sum(-1)
            held = weights.view(-1).index_select(0, places)
            weights.view(-1).index_fill_(0, places, 0.0)
            after = weights @ grown if strength is None else (weights * grown).sum(-1)
            shift = normalizer(before, after.index_add_(0, self.rows, held * own.exp()))
            memory = weights  # a fresh tensor would cost more than the sum
        moved = torch.add(self.scores, moves, out=memory)
        moved.view(-1).index_copy_(0, places, own.add_(self.scores.reshape(-1).index_select(0, places)))
        if shift is None:
            return moved
        moved += shift
        return moved.index_copy_(1, untouched, self.scores.index_select(1, untouched))

    def divergence(self) -> Callable[[Tensor], Tensor]:
        """Return the function from strengths ``[rows, 1]`` to Jensen-Shannon divergences ``[rows]`` in bits."""
        rows = self.scores.shape[0]
        evidence = self.fixed.shared.repeat(rows, 1)
        evidence.view(-1)[self.places] = self.own
        evidence = evidence[:, self.fixed.moving]
        probability = self.scores.float().softmax(-1)
        moving = probability[:, self.fixed.moving]  # [rows, moving]
        total = probability @ self.fixed.ordinary if self.keep else torch.ones_like(probability[:, 0])
        rest = (total - moving.sum(-1)).clamp(min=0)[:, None]

        def bits(strength: Tensor) -> Tensor:
            moves = self._limited(evidence * strength)
            shift = normalizer(total, (moving * moves.exp()).sum(-1) + rest[:, 0])
            return (moving * _halves((moves + shift).exp())).sum(-1) + (rest * _halves(shift.exp()))[:, 0]

        return bits

    def _limited(self, moves: Tensor) -> Tensor:
        return moves if math.isinf(self.cap) else moves.clamp(-self.cap, self.cap)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mixture:
    """Rows to be mixed with other probabilities: ``(1 - strength) p + strength q`` over ordinary tokens.

    Attributes:
        scores: ``[rows, vocab]``.
        other: q, not negative, ``[rows, vocab]``; normalised here over ordinary and possible tokens.
        fixed: which tokens are ordinary.
        weight: the full strength.
        stays: True at tokens that are not to move, ``[rows, vocab]``; None: all ordinary ones move.
        cap: no score moves by more, in nats.
    """

    scores: Tensor
    other: Tensor
    fixed: Fixed
    weight: float
    stays: Tensor | None
    cap: float

    def at(self, strength: Tensor | None = None) -> Tensor:
        """Return the mixed rows, as in `ExponentialTilting.at`; a row of which q says nothing stays as it is."""
        logp = self.scores.log_softmax(-1)
        possible = (logp > -torch.inf) & (self.fixed.ordinary > 0)
        q = torch.where(possible, self.other, 0.0)
        ordinary = logp.exp() @ self.fixed.ordinary
        logq = (q * (ordinary / q.sum(-1))[:, None]).log()  # nan: q says nothing
        s = torch.as_tensor(self.weight if strength is None else strength, dtype=logp.dtype, device=logp.device)
        moves = torch.logaddexp(torch.log1p(-s) + logp, s.log() + logq) - logp
        moves = torch.where(possible & ~moves.isnan(), moves.clamp(-self.cap, self.cap), 0.0)
        if self.stays is not None:
            moves = moves.masked_fill(self.stays, 0.0)
        moved = logp + moves
        grown = moved.exp() @ self.fixed.ordinary
        moved += normalizer(ordinary, grown)
        return moved.index_copy_(1, self.fixed.untouched, logp[:, self.fixed.untouched])

    def divergence(self) -> Callable[[Tensor], Tensor]:
        """As `ExponentialTilting.divergence`."""
        logp = self.scores.log_softmax(-1)

        def bits(strength: Tensor) -> Tensor:
            ratio = (self.at(strength) - logp).exp().nan_to_num(nan=1.0)
            return (logp.exp() * _halves(ratio)).sum(-1)

        return bits


def normalizer(before: Tensor, after: Tensor) -> Tensor:
    """What to add to moved scores so that their mass is what it was, ``[rows, 1]``; 0 where there was none."""
    shift = (before / after).log()
    return torch.where(shift.isfinite(), shift, 0.0)[:, None]


def _halves(ratio: Tensor) -> Tensor:
    """What a token adds to the Jensen-Shannon divergence in bits, for each unit of its probability before."""
    middle = (1 + ratio).log2()
    return 0.5 * (1 - middle + torch.xlogy(ratio, ratio) / math.log(2) + ratio * (1 - middle))


def strength_for(
    bits: float, strongest: float, rows: int, divergence: Callable[[Tensor], Tensor], like: Tensor
) -> Tensor:
    """Find for each row the strength that moves it by so many bits; the strongest where even that moves it less.

    The divergence of a tilted row from itself grows with the strength (so does that of a mixed one), so halving
    the interval finds it, from below.

    Args:
        bits: Jensen-Shannon divergence between the row before and after.
        strongest: with its sign.
        rows: how many.
        divergence: of strengths ``[rows, 1]``, in bits ``[rows]``.
        like: a tensor on the device of the scores.

    Returns:
        ``[rows, 1]`` float32.
    """
    high = torch.full((rows, 1), strongest, dtype=torch.float32, device=like.device)
    low = torch.where(divergence(high)[:, None] <= bits, high, 0.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = divergence(middle)[:, None] <= bits
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return low
