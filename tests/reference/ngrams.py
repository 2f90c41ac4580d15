"""Reference n-grams: counting with dictionaries, and style injection token by token in float64."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


def counted(documents: Sequence[Sequence[int]], orders: int, excluded: frozenset[int] = frozenset()) -> list[Counter]:
    """Return the counts of the n-grams of each order.

    No n-gram contains an excluded or negative id or crosses the end of a document.
    """
    counts = [Counter() for _ in range(orders)]
    for document in documents:
        for order in range(1, orders + 1):
            for begin in range(len(document) - order + 1):
                gram = tuple(document[begin : begin + order])
                if all(token >= 0 and token not in excluded for token in gram):
                    counts[order - 1][gram] += 1
    return counts


def known_orders(counts: list[Counter], row: Sequence[int]) -> list[tuple[int, dict[int, int]]]:
    """Return for each order whose context occurs the tokens that follow the end of a row, with their counts."""
    known = []
    for order in range(1, len(counts) + 1):
        if len(row) < order - 1:
            continue
        context = tuple(row[len(row) - order + 1 :])
        following = {gram[-1]: count for gram, count in counts[order - 1].items() if gram[:-1] == context}
        if following:
            known.append((order, following))
    return known


def lifted(
    counts: list[Counter],
    row: Sequence[int],
    logits: Sequence[float],
    *,
    weight: float,
    weights: Sequence[float],
    k: float,
    special: frozenset[int],
) -> list[float]:
    """Return the probabilities under the rule ``lift``; special tokens keep their probabilities."""
    best = max(logits)
    before = [math.exp(logit - best) for logit in logits]
    before = [p / sum(before) for p in before]
    after = list(before)
    for token in range(len(logits)):
        for order, following in known_orders(counts, row):
            if token in following:
                after[token] *= math.exp(weight * weights[order - 1] * math.log((following[token] + k) / k))
    ordinary = [token for token in range(len(logits)) if token not in special]
    scale = sum(before[t] for t in ordinary) / sum(after[t] for t in ordinary)
    return [after[t] * scale if t in ordinary else before[t] for t in range(len(logits))]


def literal(
    counts: list[Counter],
    row: Sequence[int],
    logits: Sequence[float],
    *,
    weight: float,
    weights: Sequence[float],
    k: float,
    outcomes: int,
) -> list[float]:
    """Return the logits under the published rule, arXiv:2601.16224, section 2.2.

    log P is added for the tokens that were seen after the context; other logits are unchanged.
    """
    moved = list(logits)
    for order, following in known_orders(counts, row):
        total = sum(following.values())
        for token, count in following.items():
            moved[token] += weight * weights[order - 1] * math.log((count + k) / (total + k * outcomes))
    return moved


def modified_kneser_ney(
    documents: Sequence[Sequence[int]], orders: int, context: Sequence[int], token: int, outcomes: int
) -> float:
    """Return P(token | context), word for word from Chen and Goodman 1998, section 3, and Heafield et al. 2013.

    A lower order counts the different symbols before an n-gram; the beginning of a document is such a symbol. Discounts
    are estimated for each order; KenLM's fallback replaces them where they cannot be. Single tokens are interpolated
    with the uniform distribution.
    """

    def adjusted(order: int) -> dict[tuple[int, ...], int]:
        seen: dict[tuple[int, ...], list[Any]] = {}
        for document in documents:
            for begin in range(len(document) - order + 1):
                gram = tuple(document[begin : begin + order])
                seen.setdefault(gram, []).append(document[begin - 1] if begin else "<s>")
        return {gram: len(before) if order == orders else len(set(before)) for gram, before in seen.items()}

    def discount(count: int, counts: dict[tuple[int, ...], int]) -> float:
        n = [sum(value == k for value in counts.values()) for k in range(5)]
        fallback = [0.5, 1.0, 1.5]
        if not all(n[1:4]):
            return fallback[min(count, 3) - 1]
        y = n[1] / (n[1] + 2 * n[2])
        estimated = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        usable = all(0 <= value <= k for k, value in enumerate(estimated, 1))
        return (estimated if usable else fallback)[min(count, 3) - 1]

    def probability(context: tuple[int, ...]) -> float:
        counts = adjusted(len(context) + 1)
        lower = probability(context[1:]) if context else 1 / outcomes
        following = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context}
        total = sum(following.values())
        if not total:
            return lower
        left = sum(discount(count, counts) for count in following.values())
        own = following[token] - discount(following[token], counts) if token in following else 0.0
        return (own + left * lower) / total

    return probability(tuple(context[max(0, len(context) - orders + 1) :]))


def counts_of(table: Any) -> list[Counter]:
    """Return the counts of an `NgramTable` as dictionaries, one for each order."""
    return [
        Counter({tuple(gram): int(count) for gram, count in zip(table.ngrams(m).tolist(), level.counts, strict=True)})
        for m, level in enumerate(table.levels, 1)
    ]


def every_context(orders: int, size: int) -> torch.Tensor:
    """Return all contexts of the longest order over ids 0 to size - 1, ``[contexts, orders - 1]``."""
    rows = list(itertools.product(range(size), repeat=orders - 1))
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), orders - 1)
