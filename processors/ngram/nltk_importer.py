"""Import of fitted `nltk.lm` models with their counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from logitkit.errors import ModelError
from logitkit.processors.ngram.counting import Ids, Level
from logitkit.processors.ngram.lexicon import Lexicon, WordKind, arrange
from logitkit.processors.ngram.smoothing import Smoothing
from logitkit.processors.ngram.table import NgramTable, check_orders


def from_nltk(model: Any, tokenizer: Any, *, words: WordKind = "tokens") -> NgramTable:
    """Import a fitted `nltk.lm` model. The probabilities of tokens equal ``model.score``.

    Padding and the unknown word keep their counts, but no processor raises them. Departure: a token outside the model's
    vocabulary is unseen here, where nltk scores it as the unknown word.

    Args:
        model: MLE, Lidstone, Laplace, StupidBackoff, or interpolated Witten-Bell, absolute discounting or Kneser-Ney.
        tokenizer: a fast tokenizer of transformers.
        words: whether the model's words are tokens in the tokenizer's spelling, or decimal ids.

    Raises:
        ModelError: a model of another class, a model that is not fitted, or a word that is not a token.
        ParameterError: orders out of range.

    Example:
        >>> import torch
        >>> from nltk.lm import MLE
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> model = MLE(1)
        >>> model.fit([[("a",), ("a",), ("b",)]], vocabulary_text="ab")
        >>> table = from_nltk(model, tiny_tokenizer())
        >>> a = tiny_tokenizer().convert_tokens_to_ids("a")
        >>> table.probability(torch.zeros(1, 0, dtype=torch.long), torch.tensor([a]))
        tensor([0.6667], dtype=torch.float64)
    """
    check_orders(model.order)
    smoothing = _smoothing_of(model)
    lexicon = Lexicon(tokenizer, words, "from_nltk")
    grams: list[Ids] = []
    counts: list[Any] = []
    for order in range(1, model.order + 1):
        counted = list(_counts_of(model, order))
        ids = [[lexicon(word) for word in gram] for gram, _ in counted]
        grams.append(np.array(ids, dtype=np.int64).reshape(-1, order))
        counts.append(np.array([count for _, count in counted], dtype=np.int64))
    if not len(grams[0]):
        raise ModelError("from_nltk: model must be fitted, got one without counts; call model.fit(...)")
    levels: list[Level] = []
    for (level, entries), amounts in zip(arrange(grams, lexicon.base), counts, strict=True):
        level_counts = np.zeros(len(level), dtype=np.int64)
        level_counts[entries] = amounts
        levels.append(replace(level, counts=level_counts))
    sources = [{"name": f"nltk.lm {type(model).__name__}"}]
    return NgramTable(levels, base=lexicon.base, smoothing=smoothing, sources=sources, **lexicon.vocabulary._asdict())


def is_nltk_model(value: Any) -> bool:
    """Return whether a value is a language model of `nltk.lm`.

    Example:
        >>> from nltk.lm import MLE
        >>> is_nltk_model(MLE(1)), is_nltk_model("a path")
        (True, False)
    """
    if not type(value).__module__.startswith("nltk.") and "nltk.lm.api" not in sys.modules:
        return False  # nltk takes long to import
    from nltk.lm.api import LanguageModel

    return isinstance(value, LanguageModel)


def _counts_of(model: Any, order: int) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield the n-grams of one order with their counts."""
    if order == 1:
        yield from (((word,), count) for word, count in model.counts.unigrams.items() if count > 0)
        return
    for context, following in model.counts[order].items():
        yield from (((*context, word), count) for word, count in following.items() if count > 0)


def _smoothing_of(model: Any) -> Smoothing:
    """Return the smoothing of an nltk model.

    Raises:
        ModelError: the class of the model computes its scores in a way of its own.
    """
    from nltk.lm import models, smoothing

    score = type(model).unmasked_score
    outcomes = max(len(model.vocab), 1)
    if score is models.MLE.unmasked_score:
        return Smoothing(name="mle", outcomes=outcomes)
    if score is models.Lidstone.unmasked_score:
        return Smoothing(name="add-k", strength=float(model.gamma), outcomes=outcomes)
    if score is models.StupidBackoff.unmasked_score:
        return Smoothing(name="stupid-backoff", strength=float(model.alpha), outcomes=outcomes)
    if score is models.InterpolatedLanguageModel.unmasked_score:
        estimator = type(model.estimator)
        if estimator is smoothing.WittenBell:
            return Smoothing(name="witten-bell", outcomes=outcomes)
        if estimator is smoothing.AbsoluteDiscounting:
            return Smoothing(name="absolute-discounting", strength=float(model.estimator.discount), outcomes=outcomes)
        if estimator is smoothing.KneserNey:
            return Smoothing(name="kneser-ney", strength=float(model.estimator.discount), outcomes=outcomes)
    raise ModelError(
        f"from_nltk: model must be of a class of nltk.lm with its own score, got {type(model).__name__}; "
        "count its text with NgramTable.train"
    )
