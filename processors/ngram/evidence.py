"""Evidence of every n-gram of a table under one rule; the formulas are in `logitkit.processors.ngram.formulas`."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from logitkit.processors.engine.binding import Binding
from logitkit.processors.ngram.formulas import EvidenceRule, lift_evidence, literal_evidence, ratio_evidence
from logitkit.processors.ngram.index import PaddedFollowers
from logitkit.processors.ngram.parameters import checked_order_weights
from logitkit.processors.ngram.table import NgramTable

PUBLISHED_TOP = 512  # n-grams of each context that arXiv:2601.16224 keeps
CHUNK = 200_000  # n-grams looked up in a background table at once, which bounds the memory


class Evidence:
    """Evidence of the n-grams of a table; arrays over all n-grams are computed on first use.

    Args:
        table: the table of the style.
        rule: how evidence is computed.
        k: pseudo-count of ``lift`` and of ``literal``.
        top: only the ``top`` most frequent n-grams of each context have evidence; None: all have, under ``literal``
            the `PUBLISHED_TOP` most frequent.
        background: the neutral table of ``pmi``.
    """

    def __init__(
        self, table: NgramTable, rule: EvidenceRule, *, k: float, top: int | None, background: NgramTable | None
    ) -> None:
        self.table, self.rule, self.k, self.background = table, rule, k, background
        self.top = PUBLISHED_TOP if top is None and rule == "literal" else top

    def on(self, table: NgramTable) -> Evidence:
        """Return the same evidence for a copy of the table on another device."""
        return Evidence(table, self.rule, k=self.k, top=self.top, background=self.background)

    def after(self, order: int, bounds: Tensor, width: int) -> tuple[PaddedFollowers, Tensor]:
        """Return the tokens that extend the contexts of each row, and their evidence, ``[rows, n]``.

        Args:
            order: length of the n-grams.
            bounds: the bounds of the contexts for this order, ``[rows, 2]``, as `NgramTable.bounds` returns them.
            width: width of the scores; tokens beyond it, and words outside the tokenizer, are left out.

        Returns:
            The tokens and where they are absent, all of them below ``width``; evidence of 0.0 where they are absent.
        """
        followers = self.table.followers_between(order, bounds)
        if self.table.base > min(width, self.table.size):
            follows = followers.follows & (followers.tokens < min(width, self.table.size))
            followers = PaddedFollowers(followers.tokens * follows, followers.entries, follows)
        values = self.of(order, followers.entries)
        if self.rule == "lift" and self.table.has_counts:
            return followers, values.mul_(followers.follows)
        return followers, values.masked_fill(~followers.follows, 0.0)  # these values may be infinite

    def of(self, order: int, entries: Tensor) -> Tensor:
        """Return the evidence of n-grams of one order, float32, in nats.

        Args:
            order: length of the n-grams.
            entries: their entries, any shape; the result has the same.
        """
        if self.rule == "lift" and self.table.has_counts:
            values = lift_evidence(self.table.levels[order - 1].counts[entries], k=self.k)
        elif self.rule == "lift":
            values = self._lift_without_counts[order - 1][entries]
        elif self.rule == "literal":
            probability = self._published.backoff.probability[order - 1][entries]
            values = literal_evidence(probability, floor=smallest_probability(self.table))
        else:
            values = self._pmi[order - 1][entries]
        return values if self.top is None else values * self._is_top[order - 1][entries]

    @cached_property
    def _published(self) -> NgramTable:
        """The table under add-k, the smoothing of the published rule; a table without counts keeps its own."""
        if not self.table.has_counts or self.table.smoothing.name == "add-k":
            return self.table
        return self.table.smoothed("add-k", self.k)

    @cached_property
    def _lift_without_counts(self) -> list[Tensor]:
        """Evidence of ``lift`` for each order of a table without counts.

        The reference is the probability that the token would have if it had not been seen after its context.
        """
        model, table, values = self.table.backoff, self.table, list[Tensor]()
        for order, level in enumerate(table.levels, 1):
            probability = model.probability[order - 1]
            if order == 1:
                reference = torch.full_like(probability, 1 / max(table.size - len(table.special), 1))
            else:
                shorter, suffixes = model.probability[order - 2], table.suffixes[order - 2]
                reference = probability
                if len(suffixes):
                    reference = torch.where(suffixes >= 0, shorter[suffixes.clamp(min=0)], torch.inf)
                reference = reference * model.weight[order - 1][level.keys // table.base]
            values.append(ratio_evidence(probability, reference))
        return values

    @cached_property
    def _pmi(self) -> list[Tensor]:
        """Positive pointwise mutual information with the background, for each order."""
        assert self.background is not None
        table, background = self.table.to("cpu"), self.background.to("cpu")
        floor = smallest_probability(background)
        values = []
        for order, probability in enumerate(table.backoff.probability, 1):
            parts = [
                background.probability(chunk[:, :-1], chunk[:, -1], order=min(order, background.orders))
                for chunk in table.ngrams(order).split(CHUNK)
            ]
            reference = torch.cat(parts) if len(probability) else torch.zeros(0, dtype=torch.float64)
            evidence = ratio_evidence(probability, reference.clamp(min=floor))
            values.append(evidence.to(self.table.levels[0].keys.device))
        return values

    @cached_property
    def _is_top(self) -> list[Tensor]:
        """For each order, 1.0 for the ``top`` most frequent n-grams of every context and 0.0 for the others."""
        assert self.top is not None
        marks = []
        for order, level in enumerate(self.table.levels):
            frequency = level.counts if self.table.has_counts else self.table.backoff.probability[order]
            context = (level.keys // self.table.base).cpu().numpy()
            by_rank = np.lexsort((-frequency.cpu().numpy(), context))
            rank = np.empty(len(level), dtype=np.int64)
            rank[by_rank] = np.arange(len(level)) - level.starts.cpu().numpy()[context]
            marks.append(torch.from_numpy((rank < self.top).astype(np.float32)).to(level.keys.device))
        return marks


def smallest_probability(table: NgramTable) -> float:
    """Return the value that replaces a probability of 0.

    In a counted table, the value is below the probability of a single occurrence. In an imported model, the value is
    the probability of the unknown word.
    """
    return 1 / (table.tokens + table.size) if table.has_counts else table.backoff.floor or 1e-12


def note_without_ngrams(
    binding: Binding, step: str, table: NgramTable, order_weights: list[float] | None, way_out: str
) -> None:
    """Tell a binding that a step can do nothing where its table has no n-gram of an order with a weight.

    >>> class Bound:
    ...     no_effect = {}
    >>> table = NgramTable.count([[1, 2]], size=4, orders=3)
    >>> note_without_ngrams(Bound, "style", table, [0.0, 1.0, 0.0], "count a longer text")
    >>> note_without_ngrams(Bound, "longer", table, [0.0, 0.0, 1.0], "count a longer text")
    >>> Bound.no_effect
    {'longer': ('no n-gram has an order with a weight', 'count a longer text, or leave longer out')}
    """
    weights = checked_order_weights(order_weights, table.orders)
    if not any(len(level.keys) for level, weight in zip(table.levels, weights, strict=True) if weight > 0):
        binding.no_effect[step] = ("no n-gram has an order with a weight", f"{way_out}, or leave {step} out")
