"""Imported nltk models: their probabilities, padding and spelling of words."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nltk.lm import Laplace, Lidstone, models
from nltk.lm.preprocessing import padded_everygram_pipeline
from nltk.util import ngrams

from logitkit.errors import ModelError, ParameterError
from logitkit.processors.ngram import NgramStyle, NgramTable
from logitkit.registry.laws import tiny_tokenizer

LETTERS = "abcd"
MAKE = {
    "MLE": models.MLE,
    "Lidstone": lambda order: Lidstone(0.1, order),
    "Laplace": Laplace,
    "StupidBackoff": lambda order: models.StupidBackoff(0.4, order),
    "WittenBell": models.WittenBellInterpolated,
    "AbsoluteDiscounting": models.AbsoluteDiscountingInterpolated,
    "KneserNey": models.KneserNeyInterpolated,
}


def fitted(name: str, order: int, seed: int, *, padded: bool = True) -> Any:
    """Return a fitted nltk model of random words; without padding it also lacks the n-grams of middle orders."""
    source = random.Random(seed)
    words = [[source.choice(LETTERS[:3]) for _ in range(source.randint(1, 12))] for _ in range(3)]
    model = MAKE[name](order)
    if padded:
        text, vocabulary = padded_everygram_pipeline(order, words)
        model.fit(text, vocabulary)
    else:
        model.fit([[*ngrams(w, order), *ngrams(w, 1)] for w in words], vocabulary_text=LETTERS)
    return model


def assert_equal_scores(model: Any, table: NgramTable) -> None:
    """Compare the probability of every letter after every context of letters."""
    ids = {letter: tiny_tokenizer().get_vocab()[letter] for letter in LETTERS}
    for length in range(model.order):
        for context in itertools.product(LETTERS, repeat=length):
            rows = torch.tensor([[ids[word] for word in context]] * 4, dtype=torch.long).reshape(4, length)
            got = table.probability(rows, torch.tensor(list(ids.values())))
            for letter, ours in zip(LETTERS, got.tolist(), strict=True):
                if letter in model.vocab and set(context) <= set(model.vocab):
                    assert abs(model.score(letter, context) - ours) < 1e-10, (letter, context)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_nltk_models_keep_their_probabilities(name: str, order: int, tmp_path: Path) -> None:
    """An imported nltk model keeps its probabilities, also when saved and loaded."""
    for seed in range(3):
        if name == "KneserNey" and order == 1:
            continue  # nltk divides by zero
        model = fitted(name, order, seed)
        table = NgramTable.from_nltk(model, tiny_tokenizer())
        assert_equal_scores(model, table)
        table.save(tmp_path / "t.safetensors")
        assert_equal_scores(model, NgramTable.load(tmp_path / "t.safetensors"))


@pytest.mark.parametrize("name", ["StupidBackoff", "MLE", "Lidstone"])
def test_nltk_models_without_shorter_ngrams(name: str) -> None:
    """A model without n-grams of middle orders is imported with count 0 for them."""
    for seed in range(3):
        model = fitted(name, 4, seed, padded=False)
        assert_equal_scores(model, NgramTable.from_nltk(model, tiny_tokenizer()))


def test_an_imported_model_steers() -> None:
    """An imported model raises tokens but not padding, although padding is the most likely word after b."""
    model = models.MLE(2)
    model.fit(*padded_everygram_pipeline(2, [list("ab"), list("aab"), list("bc")]))
    table = NgramTable.from_nltk(model, tiny_tokenizer())
    width = table.size + 7
    ids = torch.tensor([[tiny_tokenizer().get_vocab()["b"]]])
    moved = NgramStyle(table=table, weight=1.0)(ids, torch.zeros(1, width))[0]
    assert tiny_tokenizer().decode([int(moved.argmax())]) == "c" and bool((moved[table.size :] == 0).all())


def test_words_may_be_ids() -> None:
    """With words="ids" the words of the model are decimal token ids."""
    model = models.MLE(2)
    model.fit(*padded_everygram_pipeline(2, [["65", "66"], ["65", "67"]]))
    table = NgramTable.from_nltk(model, tiny_tokenizer(), words="ids")
    assert float(table.probability(torch.tensor([[65]]), torch.tensor([66]))) == 0.5


class OverridingModel(models.MLE):
    """An nltk model that overrides the score of its base class."""

    def unmasked_score(self, word: Any, context: Any = None) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (lambda: models.MLE(2), ModelError, "model must be fitted"),
        (lambda: models.MLE(6), ParameterError, "orders must be a whole number from 1 to 5, got 6"),
        (
            lambda: OverridingModel(2),
            ModelError,
            "must be of a class of nltk.lm with its own score, got OverridingModel",
        ),
    ],
)
def test_other_models_are_refused(model: Any, error: Any, says: str) -> None:
    """A model that is not fitted, too long n-grams, and another kind of score are refused."""
    with pytest.raises(error, match=says):
        NgramTable.from_nltk(model(), tiny_tokenizer())


def test_words_that_are_no_tokens_are_refused() -> None:
    """The error names the word and the fix."""
    model = models.MLE(2)
    model.fit(*padded_everygram_pipeline(2, [["a", "word"]]))
    with pytest.raises(ModelError, match=r"must be a token of the tokenizer, got 'word'; fit it on .*words='ids'"):
        NgramTable.from_nltk(model, tiny_tokenizer())
