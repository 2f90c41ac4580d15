"""What a comparison of two models on some texts holds; `logitkit.diagnostics.compare` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from logitkit.diagnostics.quadrants import Quadrants, carriers
from logitkit.diagnostics.token_differences import TokenDifferences
from logitkit.diagnostics.token_spellings import TokenSpellings
from logitkit.processors.cascade import DivergenceLabels
from logitkit.processors.cascade.label_files import DIVERGENT, IDENTICAL, NEUTRAL

Measure = Literal["js", "kl", "reverse_kl"]
UNITS = {"js": "bits", "kl": "nats", "reverse_kl": "nats"}


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedText:
    """One text under two models.

    Attributes:
        prompt_ids: tokens that were read and not compared: the first token, or the prompt of a labelled answer.
        differences: columns of the compared tokens.
        left_out: number of tokens behind them that were not read.
        windows: number of windows in which the text was read; 1: at once.
        judged: labels that the text came with, from a file of divergence labels; None: no labels.

    Example:
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> text = compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a text").texts[0]
        >>> len(text), text.windows, text.left_out
        (5, 1, 0)
    """

    prompt_ids: list[int]
    differences: TokenDifferences
    left_out: int
    windows: int
    judged: list[int] | None = None

    def __len__(self) -> int:
        return len(self.differences.ids)


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelComparison:
    """Two models on some texts; `compare` returns it.

    Attributes:
        names: of the model and the other one.
        level: ``tokens``, or ``bytes`` where the tokenizers differ.
        texts: the texts.
        spellings: how tokens are written.
        measure: the divergence of the quadrants and of the labels: ``js`` in bits, ``kl`` or ``reverse_kl`` in nats.
        quadrants: entropy of the model by divergence from the other one.
        gained: by token, the probability that it has under the other model beyond that under the model, summed over
            all places; float64 ``[vocab]``.
        leaks: mean probability of each model on other tokenizations and on bytes that the other one excludes; 0 of
            tokens.
        window: largest number of tokens that were read at once.
        beta, plausible: strength and plausibility of the contrastive estimate.
        begins: over bytes, the token that precedes every text for each model, as text.

    Example:
        >>> from logitkit.diagnostics import compare
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> found = compare(tiny_model(), tiny_tokenizer(), tiny_model(1), "a short text")
        >>> found.level, len(found), len(found.labels(0).labels)
        ('tokens', 11, 11)
    """

    names: tuple[str, str]
    level: Literal["tokens", "bytes"]
    texts: list[ComparedText]
    spellings: TokenSpellings
    measure: Measure
    quadrants: Quadrants
    gained: Tensor
    leaks: tuple[float, float]
    window: int
    beta: float
    plausible: float
    begins: tuple[str, str] | None = None

    def __len__(self) -> int:
        return sum(map(len, self.texts))

    @cached_property
    def columns(self) -> TokenDifferences:
        """The differences at the tokens of all texts, concatenated in the order of the texts."""
        return TokenDifferences(*map(torch.cat, zip(*(text.differences for text in self.texts), strict=True)))

    @cached_property
    def divergences(self) -> Tensor:
        """The divergence of the measure at every token, float64 ``[tokens]``."""
        return divergences_of(self.columns, self.measure)

    @cached_property
    def carriers(self) -> dict[float, float]:
        """The share of the tokens that carries half of the divergence, 80 % and 95 %; see `carriers`."""
        return carriers(self.divergences.tolist())

    def labels(self, text: int) -> DivergenceLabels:
        """Return a text with the columns of router labels.

        ``identical``: both models have the same most likely token. ``divergent``: another one, and the divergence is
        above its threshold. ``neutral``: another one, and it is not. ``answer_ids`` are the compared tokens.

        Args:
            text: number of the text, from 0.
        """
        shown = self.texts[text].differences
        same = shown.likeliest[:, 0] == shown.likeliest[:, 1]
        apart = divergences_of(shown, self.measure) > self.quadrants.divergence
        labels = torch.where(same, IDENTICAL, torch.where(apart, DIVERGENT, NEUTRAL))
        return DivergenceLabels(
            prompt=text,
            prompt_ids=self.texts[text].prompt_ids,
            answer_ids=shown.ids.tolist(),
            small_ids=shown.likeliest[:, 0].tolist(),
            labels=labels.tolist(),
        )

    def place(self, number: int) -> tuple[int, int]:
        """Return text and place, both from 0, of a token that is counted over all texts."""
        for text, compared in enumerate(self.texts):
            if number < len(compared):
                return text, number
            number -= len(compared)
        raise IndexError(number)


def divergences_of(columns: TokenDifferences, measure: Measure) -> Tensor:
    """Return the divergence of a measure, float64 ``[tokens]``; the unit is that of `UNITS`."""
    return columns.js_bits if measure == "js" else columns.kl if measure == "kl" else columns.reverse_kl
