"""How much of a style a text has, and what it cost: measured per text, summarised by the geometric mean.

Style perplexity is the published one (arXiv:2601.16224, section 2.3): a mixture of the orders whose context
occurs, each with add-k. It is measured with the table that steered and with one that did not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.ngram.evidence import default_weights
from logitkit.processors.ngram.table import NgramTable


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """One prompt and its continuation as token ids, and what each token moved the distribution (JS, bits)."""

    prompt: list[int]
    continuation: list[int]
    js_bits: list[float]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A perplexity over texts: geometric mean, arithmetic mean, and the 10th and 90th percentile."""

    geometric: float
    arithmetic: float
    low: float
    high: float

    @classmethod
    def of(cls, logs: Sequence[float]) -> Spread:
        """Summarise natural logarithms of perplexities."""
        tenths = statistics.quantiles(logs, n=10, method="inclusive") if len(logs) > 1 else [logs[0]] * 9
        every = [math.exp(log) for log in logs]
        return cls(
            geometric=math.exp(statistics.fmean(logs)),
            arithmetic=statistics.fmean(every),
            low=math.exp(tenths[0]),
            high=math.exp(tenths[-1]),
        )


class StyleMeter:
    """Measures texts against one table.

    Args:
        table: counts; its own smoothing is not used.
        k: pseudo-count of the style perplexity.
        frequent: how many of the most frequent tokens count as the style's words.
    """

    def __init__(self, table: NgramTable, *, k: float = 1e-3, frequent: int = 5000) -> None:
        self.table = table.smoothed("add-k", k)
        first = self.table.levels[0]
        self._words = set(first.keys[first.counts.argsort(descending=True)[:frequent]].tolist())

    def log_perplexity(self, text: Continuation) -> float:
        """Style perplexity of a continuation after its prompt, as a natural logarithm."""
        before, tokens = _windows(text, self.table.orders - 1)
        contexts = self.table.contexts(before)
        weights = torch.tensor(default_weights(self.table.orders), dtype=torch.float64) * (contexts >= 0)
        orders = range(1, self.table.orders + 1)
        each = torch.stack([self.table.probability(before, tokens, order=order) for order in orders], dim=1)
        mixed = (weights * each).sum(-1) / weights.sum(-1)
        return float(-mixed.log().mean())

    def unigram_overlap(self, text: Continuation) -> float:
        """Share of tokens that are among the style's most frequent ones."""
        return statistics.fmean(token in self._words for token in text.continuation)

    def bigram_seen(self, text: Continuation) -> float:
        """Share of bigrams that occur in the style."""
        pairs = torch.tensor(text.continuation).unfold(0, 2, 1)
        first = self.table.find(1, torch.zeros_like(pairs[:, 0]), pairs[:, 0])
        return float((self.table.find(2, first, pairs[:, 1]) >= 0).float().mean())


def distinct(text: Continuation, order: int) -> float:
    """Share of n-grams of a continuation that are different: 1 where none repeats."""
    grams = list(zip(*(text.continuation[start:] for start in range(order)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


@torch.no_grad()
def base_log_perplexity(model: Any, texts: Sequence[Continuation]) -> list[float]:
    """Perplexity of each continuation under the model itself, without steering, as natural logarithms."""
    found = []
    for text in texts:
        ids = torch.tensor([text.prompt + text.continuation], device=model.device)
        logits = model(input_ids=ids, logits_to_keep=len(text.continuation) + 1).logits[0, :-1].float()
        logp = logits.log_softmax(-1).gather(1, ids[0, len(text.prompt) :, None])
        found.append(float(-logp.mean()))
    return found


def _windows(text: Continuation, width: int) -> tuple[Tensor, Tensor]:
    """The tokens before each token of a continuation, ``[tokens, width]``, and the tokens."""
    ids = torch.tensor([-1] * width + text.prompt + text.continuation)
    count = len(text.continuation)
    before = ids.unfold(0, width, 1)[-count - 1 : -1] if width else torch.zeros(count, 0, dtype=torch.long)
    return before, ids[-count:]
