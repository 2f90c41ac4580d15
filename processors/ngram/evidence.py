"""What a table says for or against a token: the evidence of one n-gram, in nats.

Ahmed, arXiv:2601.16224, section 2.2, adds ``weight * sum_n w_n log P_n(token | context)`` to the logits of the tokens
that the table holds, and nothing to the others. Since log P is never positive, that penalises exactly the
tokens it means to favour. ``literal`` is that rule, for reproduction. ``lift`` is the same sum taken over the whole
vocabulary and shifted so that a token that was not seen gets nothing:

    log P(token | context) - log P(a token not seen | context) = log((count + k) / k)  >= 0     (add-k)

``pmi`` compares with a background table instead, and ``mixture`` mixes probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from logitkit.processors.ngram.index import NONE
from logitkit.processors.ngram.table import NgramTable

Rule = Literal["lift", "literal", "pmi", "mixture"]
CHUNK = 200_000  # n-grams looked up in a background table at once


def default_weights(orders: int) -> list[float]:
    """Weights of the orders, 1 : 3 : 6 : 10 : 15 normalised; for three orders the paper's 0.1, 0.3, 0.6."""
    parts = [order * (order + 1) / 2 for order in range(1, orders + 1)]
    return [part / sum(parts) for part in parts]


class Evidence:
    """The evidence of each n-gram of a table under one rule; arrays are made when first asked for.

    Args:
        table: the style.
        rule: ``lift``, ``literal`` or ``pmi``.
        k: pseudo-count of ``lift``.
        top: only the so many most frequent n-grams of each context count; None: all.
        background: the neutral table of ``pmi``.
    """

    def __init__(
        self, table: NgramTable, rule: Rule, *, k: float, top: int | None, background: NgramTable | None
    ) -> None:
        self.table, self.rule, self.k, self.top, self.background = table, rule, k, top, background

    def of(self, order: int, entries: Tensor) -> Tensor:
        """Evidence of n-grams, ``[n]`` float32, in nats."""
        if self.rule == "lift" and self.table.counted:
            values: Tensor = (self.table.levels[order - 1].counts.index_select(0, entries) / self.k).log1p_()
        elif self.rule == "lift":
            values = self._ratios[order - 1][entries]
        elif self.rule == "literal":
            values = self.table.backoff.probability[order - 1][entries].clamp(min=least(self.table)).log().float()
        else:
            values = self._information[order - 1][entries]
        return values if self.top is None else values * self._foremost[order - 1][entries]

    @cached_property
    def _ratios(self) -> list[Tensor]:
        """Without counts: log of P over what the token would have had, had it not been seen after this context."""
        made, table, found = self.table.backoff, self.table, list[Tensor]()
        for order, level in enumerate(table.levels, 1):
            if order == 1:
                lower = torch.full_like(made.probability[0], 1 / max(table.size - len(table.special), 1))
            else:
                below, at = made.probability[order - 2], table.suffixes[order - 2]
                lower = (
                    torch.where(at >= 0, below[at.clamp(min=0)], torch.inf) if len(at) else made.probability[order - 1]
                )
                lower = lower * made.rest[order - 1][level.keys // table.base]
            found.append((made.probability[order - 1] / lower).log().clamp(min=0).float())
        return found

    @cached_property
    def _information(self) -> list[Tensor]:
        """Positive pointwise mutual information; a signed one would again penalise what was seen below what was not."""
        assert self.background is not None
        table, neutral = self.table.to("cpu"), self.background.to("cpu")
        floor = least(neutral)
        found = []
        for order, level in enumerate(table.levels, 1):
            ids = ngrams(table, order)
            parts = [
                neutral.probability(chunk[:, :-1], chunk[:, -1], order=min(order, neutral.orders))
                for chunk in ids.split(CHUNK)
            ]
            other = torch.cat(parts).clamp(min=floor) if len(level) else torch.zeros(0, dtype=torch.float64)
            values = (table.backoff.probability[order - 1] / other).log().clamp(min=0).float()
            found.append(values.to(self.table.levels[0].keys.device))
        return found

    @cached_property
    def _foremost(self) -> list[Tensor]:
        """Of each order, 1.0 for the most frequent n-grams of every context and 0.0 for the others."""
        assert self.top is not None
        marks = []
        for order, level in enumerate(self.table.levels):
            amount = level.counts if self.table.counted else self.table.backoff.probability[order]
            context = (level.keys // self.table.base).cpu().numpy()
            by_rank = np.lexsort((-amount.cpu().numpy(), context))
            rank = np.empty(len(level), dtype=np.int64)
            rank[by_rank] = np.arange(len(level)) - level.starts.cpu().numpy()[context]
            marks.append(torch.from_numpy((rank < self.top).astype(np.float32)).to(level.keys.device))
        return marks


def least(table: NgramTable) -> float:
    """Stands for a probability of 0: less than one occurrence, or what an imported model says of the unknown."""
    return 1 / (table.tokens + table.size) if table.counted else table.backoff.floor or 1e-12


def ngrams(table: NgramTable, order: int) -> Tensor:
    """All n-grams of one order as token ids, ``[entries, order]``."""
    entries = torch.arange(len(table.levels[order - 1]), device=table.levels[0].keys.device)
    columns = []
    for level in reversed(table.levels[:order]):
        keys = level.keys[entries]
        columns.append(keys % table.base)
        entries = keys // table.base
    return torch.stack(columns[::-1], dim=1)


def mixture(table: NgramTable, contexts: Tensor, weights: Sequence[float], width: int) -> Tensor:
    """Probabilities of all tokens, mixed over the orders whose context occurs, as the paper's ``P_mix``.

    Args:
        table: its smoothing says what P of an order is.
        contexts: from `NgramTable.contexts`, ``[rows, orders]``.
        weights: of the orders; renormalised over those whose context occurs.
        width: of the result; tokens beyond the table have probability 0.

    Returns:
        ``[rows, width]`` float32.
    """
    made, rows = table.backoff, contexts.shape[0]
    there = (contexts >= 0).float() * torch.tensor(weights, device=contexts.device)  # [rows, orders]
    share = there / there.sum(-1, keepdim=True).clamp(min=1e-30)
    total = torch.zeros(rows, width, device=contexts.device)
    lower = torch.full((rows, width), made.floor, device=contexts.device)
    for order in range(1, table.orders + 1):
        context = contexts[:, order - 1]
        known = made.rest[order - 1]
        rest = torch.where(context >= 0, known[context.clamp(min=0)], made.unknown) if len(known) else context * 0.0
        rest = torch.where(context == NONE, 0.0 if made.flat else 1.0, rest).float()[:, None]
        row = rest.expand(rows, width).clone() if made.flat else lower * rest
        put(row, table.followers(order, context), made.probability[order - 1], table.size)
        total += share[:, order - 1 : order] * row
        lower = row
    return total


def put(rows: Tensor, followers: tuple[Tensor, Tensor, Tensor], values: Any, size: int) -> None:
    """Write the values of entries to their places in dense rows."""
    number, tokens, entries = followers
    inside = tokens < min(rows.shape[1], size)
    place = number[inside] * rows.shape[1] + tokens[inside]
    rows.view(-1)[place] = values[entries[inside]].to(rows.dtype)
