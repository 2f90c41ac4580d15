"""Imported nltk models: their probabilities, padding and spelling of words."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nltk.corpus import PlaintextCorpusReader
from nltk.lm import Laplace, Lidstone, models
from nltk.lm.preprocessing import padded_everygram_pipeline
from nltk.util import ngrams

import logitkit
from logitkit.errors import DataError, ModelError, ParameterError
from logitkit.processors.ngram import NgramStyle, NgramTable, NltkCorpus
from logitkit.registry.laws import tiny_model, tiny_tokenizer

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


def test_a_fitted_model_serves_as_a_table() -> None:
    """A chain takes the nltk model itself, and gives what its imported table gives."""
    model = fitted("KneserNey", 2, 0)
    settings: dict[str, Any] = {"chain": "ngram_style('prior', 0.5)", "max_new_tokens": 6, "do_sample": False}
    texts = [
        logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", resources={"prior": prior}, **settings).texts
        for prior in (model, NgramTable.from_nltk(model, tiny_tokenizer()))
    ]
    assert texts[0] == texts[1]


def test_corpus_readers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of a reader is that of its files; the sources name them."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"the text of {name}")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])  # nltk reads no other folders
    reader = PlaintextCorpusReader(str(tmp_path), r".*\.txt")
    corpus = NltkCorpus(reader, ["b.txt", "a.txt"])
    table = NgramTable.train(corpus, tiny_tokenizer())
    want = NgramTable.train(["the text of b", "the text of a"], tiny_tokenizer())
    assert all((got.counts == level.counts).all() for got, level in zip(table.levels, want.levels, strict=True))
    assert [source["name"] for source in table.sources] == [
        "nltk:PlaintextCorpusReader/b.txt",
        "nltk:PlaintextCorpusReader/a.txt",
    ]
    with pytest.raises(ParameterError, match=r"fileid must be one of a.txt, b.txt, got 'c.txt'"):
        NltkCorpus(reader, ["c.txt"])


@pytest.mark.parametrize("name", ["no_such_corpus", "_private", "reader", "PlaintextCorpusReader", ""])
def test_unknown_corpora_are_refused(name: str) -> None:
    """The error names a corpus that exists."""
    with pytest.raises(ParameterError, match=r"the name of a corpus in nltk\.corpus, such as gutenberg"):
        NltkCorpus(name)


def test_a_corpus_that_is_not_downloaded_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error has the command that downloads it."""
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    with pytest.raises(DataError, match=r"run: python -m nltk\.downloader inaugural"):
        NltkCorpus("inaugural")
