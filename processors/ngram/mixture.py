"""The rule ``mixture``: mix the model's probabilities with those of a table, ``(1 - weight) p + weight q``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from logitkit.processors.ngram.exponential_tilting import Places, SharedEvidence
from logitkit.processors.ngram.formulas import js_bits_per_mass, mixed_log_probabilities, normalizer
from logitkit.processors.ngram.index import NO_CONTEXT, PaddedFollowers
from logitkit.processors.ngram.table import NgramTable


@dataclass(frozen=True, eq=False, kw_only=True)
class Mixture:
    """One step of the rule ``mixture`` for a batch.

    Attributes:
        scores: ``[rows, vocab]``.
        other: q, ``[rows, vocab]``, not negative. It is normalised over the ordinary and possible tokens.
        shared: gives the ordinary tokens.
        weight: the full weight, 0 to 1.
        fixed: True at ordinary tokens that do not move, ``[rows, vocab]``; None: all ordinary tokens move.
        cap: largest move of a log-probability, in nats; may be infinite.
    """

    scores: Tensor
    other: Tensor
    shared: SharedEvidence
    weight: float
    fixed: Tensor | None
    cap: float

    def moved(self, row_weights: Tensor | None = None) -> Tensor:
        """Return the mixed rows as log-probabilities, a new ``[rows, vocab]`` tensor.

        Untouched tokens keep their probability. A row in which q is 0 everywhere keeps its distribution.

        Args:
            row_weights: ``[rows, 1]``; None: the full weight in all rows.
        """
        ordinary, untouched = self.shared.ordinary, self.shared.untouched
        logp = self.scores.log_softmax(-1)
        possible = (logp > -torch.inf) & (ordinary > 0)
        q = torch.where(possible, self.other, 0.0)
        mass = logp.exp() @ ordinary
        logq = (q * (mass / q.sum(-1))[:, None]).log()  # NaN in a row in which q is 0 everywhere
        weight = self.weight if row_weights is None else row_weights
        mixed = mixed_log_probabilities(logp, logq, torch.as_tensor(weight, dtype=logp.dtype, device=logp.device))
        moves = mixed - logp
        moves = torch.where(possible & ~moves.isnan(), moves.clamp(-self.cap, self.cap), 0.0)
        if self.fixed is not None:
            moves = moves.masked_fill(self.fixed, 0.0)
        result = logp + moves
        result += normalizer(mass, result.exp() @ ordinary)
        return result.index_copy_(1, untouched, logp[:, untouched])

    def divergence(self) -> Callable[[Tensor], Tensor]:
        """Return a function from weights to divergences in bits, as `ExponentialTilting.divergence` does."""
        logp = self.scores.log_softmax(-1)

        def bits(row_weights: Tensor) -> Tensor:
            ratio = (self.moved(row_weights) - logp).exp().nan_to_num(nan=1.0)
            return (logp.exp() * js_bits_per_mass(ratio)).sum(-1)

        return bits


def mixture_of_orders(table: NgramTable, contexts: Tensor, order_weights: Tensor, width: int) -> Tensor:
    """Return the probabilities ``P_mix`` of arXiv:2601.16224, section 2.2: a weighted mean over the orders.

    Only orders whose context occurs before some token take part, and their weights are normalised. A context that
    occurs at the end of documents alone says nothing of the next token. The smoothing of the table gives the
    probabilities of each order.

    Args:
        table: counts or an imported model.
        contexts: result of `NgramTable.contexts`, ``[rows, orders]``.
        order_weights: one for each order, not negative, ``[orders]``.
        width: width of the result; tokens outside the table have probability 0.

    Returns:
        ``[rows, width]`` float32.
    """
    model, rows = table.backoff, contexts.shape[0]
    followed = torch.stack([_has_follower(table, m, contexts[:, m - 1]) for m in range(1, table.orders + 1)], dim=1)
    occurs = followed.float() * order_weights  # [rows, orders]
    shares = occurs / occurs.sum(-1, keepdim=True).clamp(min=1e-30)
    total = torch.zeros(rows, width, device=contexts.device)
    lower = torch.full((rows, width), model.floor, device=contexts.device)
    for order in range(1, table.orders + 1):
        context = contexts[:, order - 1]
        of_contexts = model.weight[order - 1]
        weight = context * 0.0
        if len(of_contexts):
            weight = torch.where(context >= 0, of_contexts[context.clamp(min=0)], model.unseen_weight)
        weight = torch.where(context == NO_CONTEXT, 1.0 if model.backs_off else 0.0, weight).float()[:, None]
        probability = lower * weight if model.backs_off else weight.expand(rows, width)
        probability = _written(probability, table.padded_followers(order, context), model.probability[order - 1], table)
        total += shares[:, order - 1 : order] * probability
        lower = probability
    return total


def _has_follower(table: NgramTable, order: int, contexts: Tensor) -> Tensor:
    """Return which contexts some n-gram of this order extends, bool ``[rows]``."""
    starts, known = table.levels[order - 1].starts, contexts.clamp(min=0)
    if len(starts) < 2:  # no context of this order
        return torch.zeros_like(contexts, dtype=torch.bool)
    followed: Tensor = (contexts >= 0) & (starts[known + 1] > starts[known])
    return followed


def _written(probability: Tensor, followers: PaddedFollowers, values: Tensor, table: NgramTable) -> Tensor:
    """Return dense rows with the values of followers; followers beyond the tokenizer or the rows are left out."""
    width = probability.shape[1]
    present = followers.follows & (followers.tokens < min(width, table.size))
    places = Places.of(followers.tokens, present, width)
    flat = probability.new_empty(probability.numel() + 1)  # the last takes what belongs to no place
    result = flat[:-1].view(probability.shape).copy_(probability)
    flat.index_copy_(0, places.flat, values[followers.entries].flatten().to(probability.dtype))
    return result
