"""Metrics of style, measured per text and summarised by the geometric mean.

Style perplexity is the published one (arXiv:2601.16224, section 2.3): a mixture over the n-gram orders whose context
occurs in the table, each with add-k smoothing. The metric is computed with the table that steered the text, and with a
table of other text.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.ngram.formulas import default_order_weights
from logitkit.processors.ngram.table import NgramTable


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A prompt and its continuation.

    Attributes:
        prompt: token ids of the prompt.
        continuation: token ids of the continuation.
        js_bits: for each token of the continuation, the Jensen-Shannon divergence in bits between the distributions
            before and after the chain; empty if it was not recorded.

    Examples:
        >>> len(Continuation(prompt=[1], continuation=[2, 3], js_bits=[0.1, 0.0]).continuation)
        2
    """

    prompt: list[int]
    continuation: list[int]
    js_bits: list[float]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Summary of a perplexity over texts.

    Attributes:
        geometric, arithmetic: means.
        low, high: 10th and 90th percentile.

    Examples:
        >>> Spread.of([0.0, 0.0]).arithmetic
        1.0
    """

    geometric: float
    arithmetic: float
    low: float
    high: float

    @classmethod
    def of(cls, logs: Sequence[float]) -> Spread:
        """Summarise the natural logarithms of perplexities.

        Examples:
            >>> round(Spread.of([0.0, math.log(100)]).geometric, 6)
            10.0
        """
        tenths = statistics.quantiles(logs, n=10, method="inclusive") if len(logs) > 1 else [logs[0]] * 9
        perplexities = [math.exp(log) for log in logs]
        return cls(
            geometric=math.exp(statistics.fmean(logs)),
            arithmetic=statistics.fmean(perplexities),
            low=math.exp(tenths[0]),
            high=math.exp(tenths[-1]),
        )


class StyleMeter:
    """Measures texts against one table of n-grams.

    Args:
        table: the counts; the table's own smoothing is replaced by add-k.
        k: pseudo-count of the style perplexity, > 0.
        frequent: number of the most frequent tokens, which are the words of the style.

    Examples:
        >>> meter = StyleMeter(NgramTable.count([[1, 2, 3, 1, 2, 4]], size=5, orders=3), frequent=2)
        >>> meter.unigram_overlap(Continuation(prompt=[1], continuation=[1, 2, 0, 0], js_bits=[]))
        0.5
    """

    def __init__(self, table: NgramTable, *, k: float = 1e-3, frequent: int = 5000) -> None:
        self.table = table.smoothed("add-k", k)
        unigrams = self.table.levels[0]
        self._words = set(unigrams.keys[unigrams.counts.argsort(descending=True)[:frequent]].tolist())

    def log_perplexity(self, text: Continuation) -> float:
        """Return the natural logarithm of the style perplexity of a continuation after its prompt."""
        before, tokens = _windows(text, self.table.orders - 1)
        contexts = self.table.contexts(before)
        weights = torch.tensor(default_order_weights(self.table.orders), dtype=torch.float64) * (contexts >= 0)
        orders = range(1, self.table.orders + 1)
        probabilities = torch.stack([self.table.probability(before, tokens, order=order) for order in orders], dim=1)
        mixed = (weights * probabilities).sum(-1) / weights.sum(-1)
        return float(-mixed.log().mean())

    def unigram_overlap(self, text: Continuation) -> float:
        """Return the share of tokens that are among the most frequent tokens of the style."""
        return statistics.fmean(token in self._words for token in text.continuation)

    def bigram_seen(self, text: Continuation) -> float:
        """Return the share of bigrams that occur in the style."""
        pairs = torch.tensor(text.continuation).unfold(0, 2, 1)
        first = self.table.find(1, torch.zeros_like(pairs[:, 0]), pairs[:, 0])
        return float((self.table.find(2, first, pairs[:, 1]) >= 0).float().mean())


def distinct(text: Continuation, order: int) -> float:
    """Return the share of different n-grams among all n-grams of a continuation; 1 if none repeats.

    Examples:
        >>> distinct(Continuation(prompt=[], continuation=[1, 2, 1, 2, 1], js_bits=[]), 2)
        0.5
    """
    grams = list(zip(*(text.continuation[start:] for start in range(order)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


@torch.no_grad()
def base_log_perplexity(model: Any, texts: Sequence[Continuation]) -> list[float]:
    """Return the natural logarithm of each continuation's perplexity under the model itself, without a chain.

    Examples:
        >>> from logitkit.registry.laws import tiny_model
        >>> (log,) = base_log_perplexity(tiny_model(), [Continuation(prompt=[1], continuation=[2, 3], js_bits=[])])
        >>> log > 0
        True
    """
    perplexities = []
    for text in texts:
        ids = torch.tensor([text.prompt + text.continuation], device=model.device)
        logits = model(input_ids=ids, logits_to_keep=len(text.continuation) + 1).logits[0, :-1].float()
        logp = logits.log_softmax(-1).gather(1, ids[0, len(text.prompt) :, None])
        perplexities.append(float(-logp.mean()))
    return perplexities


def _windows(text: Continuation, width: int) -> tuple[Tensor, Tensor]:
    """Return the ``width`` tokens before each token of a continuation, ``[tokens, width]``, and the tokens."""
    ids = torch.tensor([-1] * width + text.prompt + text.continuation)
    count = len(text.continuation)
    before = ids.unfold(0, width, 1)[-count - 1 : -1] if width else torch.zeros(count, 0, dtype=torch.long)
    return before, ids[-count:]
