"""Imported models: nltk's probabilities with their padding, and ARPA files."""

from __future__ import annotations

import gzip
import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nltk.lm import Laplace, Lidstone, models
from nltk.lm.preprocessing import padded_everygram_pipeline
from nltk.util import ngrams

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.ngram.evidence import ngrams as all_ngrams
from logitkit.processors.ngram.style import NgramStyle
from logitkit.processors.ngram.table import NgramTable
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
ARPA = """
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<unk>
-0.3010299957\ta\t-0.2
-0.6020599913\tb\t-0.1
-0.6\t</s>

\\2-grams:
-0.1\ta b
-0.5\tb </s>

\\end\\
"""


def fitted(name: str, order: int, seed: int, *, padded: bool = True) -> Any:
    """An nltk model of random words; without padding, and without n-grams of middle orders, if asked."""
    source = random.Random(seed)
    words = [[source.choice(LETTERS[:3]) for _ in range(source.randint(1, 12))] for _ in range(3)]
    model = MAKE[name](order)
    if padded:
        text, vocabulary = padded_everygram_pipeline(order, words)
        model.fit(text, vocabulary)
    else:
        model.fit([[*ngrams(w, order), *ngrams(w, 1)] for w in words], vocabulary_text=LETTERS)
    return model


def agrees(model: Any, table: NgramTable) -> None:
    """Every letter after every context of letters."""
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
    """With padding, which counts and is never suggested; and after a file."""
    for seed in range(3):
        if name == "KneserNey" and order == 1:
            continue  # nltk divides by zero
        model = fitted(name, order, seed)
        table = NgramTable.from_nltk(model, tiny_tokenizer())
        agrees(model, table)
        table.save(tmp_path / "t.safetensors")
        agrees(model, NgramTable.load(tmp_path / "t.safetensors"))


@pytest.mark.parametrize("name", ["StupidBackoff", "MLE", "Lidstone"])
def test_nltk_models_without_shorter_ngrams(name: str) -> None:
    """The beginnings and ends that are missing count zero."""
    for seed in range(3):
        model = fitted(name, 4, seed, padded=False)
        agrees(model, NgramTable.from_nltk(model, tiny_tokenizer()))


def test_an_imported_model_steers() -> None:
    """Padding is never boosted, though it is the likeliest word after b."""
    model = models.MLE(2)
    model.fit(*padded_everygram_pipeline(2, [list("ab"), list("aab"), list("bc")]))
    table = NgramTable.from_nltk(model, tiny_tokenizer())
    width = table.size + 7
    ids = torch.tensor([[tiny_tokenizer().get_vocab()["b"]]])
    moved = NgramStyle(table=table, weight=1.0)(ids, torch.zeros(1, width))[0]
    assert tiny_tokenizer().decode([int(moved.argmax())]) == "c" and bool((moved[table.size :] == 0).all())


def test_words_may_be_ids() -> None:
    """Decimal, where asked for."""
    model = models.MLE(2)
    model.fit(*padded_everygram_pipeline(2, [["65", "66"], ["65", "67"]]))
    table = NgramTable.from_nltk(model, tiny_tokenizer(), words="ids")
    assert float(table.probability(torch.tensor([[65]]), torch.tensor([66]))) == 0.5


class Own(models.MLE):
    """A model with a score of its own."""

    def unmasked_score(self, word: Any, context: Any = None) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (lambda: models.MLE(2), ModelError, "model must be fitted"),
        (lambda: models.MLE(6), ParameterError, "orders must be a whole number from 1 to 5, got 6"),
        (lambda: Own(2), ModelError, "must be of a class of nltk.lm with its own score, got Own"),
    ],
)
def test_other_models_are_refused(model: Any, error: Any, says: str) -> None:
    """By what they are."""
    with pytest.raises(error, match=says):
        NgramTable.from_nltk(model(), tiny_tokenizer())


def test_words_that_are_no_tokens_are_refused() -> None:
    """With the word and the way out."""
    model = models.MLE(2)
    model.fit(*padded_everygram_pipeline(2, [["a", "word"]]))
    with pytest.raises(ModelError, match=r"must be a token of the tokenizer, got 'word'; fit it on .*words='ids'"):
        NgramTable.from_nltk(model, tiny_tokenizer())


def test_arpa_by_hand(tmp_path: Path) -> None:
    """P(b | a) is written; P(a | b) backs off with b's weight; a letter that is not there has the unknown's."""
    path = tmp_path / "m.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode()))
    table = NgramTable.from_arpa(path, tiny_tokenizer())
    a, b, c = (tiny_tokenizer().get_vocab()[letter] for letter in "abc")
    table.save(tmp_path / "t.safetensors")
    for read in (table, NgramTable.load(tmp_path / "t.safetensors")):
        got = read.probability(torch.tensor([[a], [b], [a], [c]]), torch.tensor([b, a, c, a])).log10()
        want = torch.tensor([-0.1, -0.1 - 0.30103, -0.2 - 1.0, -0.30103], dtype=torch.float64)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_arpa_carries_any_smoothed_table(tmp_path: Path) -> None:
    """A Kneser-Ney table written as ARPA and read back says the same everywhere."""
    tokenizer = tiny_tokenizer()
    table = NgramTable.train(["abracadabra", "cabbada", "dab"], tokenizer, smoothing="witten-bell")
    words = {number: token for token, number in tokenizer.get_vocab().items()}
    lines = ["\\data\\", *(f"ngram {m}={len(level)}" for m, level in enumerate(table.levels, 1))]
    for m in range(1, 4):
        lines.append(f"\\{m}-grams:")
        rests = table.backoff.rest[m].tolist() if m < 3 else [1.0] * len(table.levels[2])
        probabilities = table.backoff.probability[m - 1].tolist()
        for gram, p, rest in zip(all_ngrams(table, m).tolist(), probabilities, rests, strict=True):
            lines.append(f"{math.log10(p)!r}\t{' '.join(words[t] for t in gram)}\t{math.log10(rest)!r}")
    (tmp_path / "m.arpa").write_text("\n".join([*lines, "\\end\\", ""]), encoding="utf-8")
    again = NgramTable.from_arpa(tmp_path / "m.arpa", tokenizer)
    letters = torch.tensor(sorted(set(all_ngrams(table, 1)[:, 0].tolist())))
    rows = torch.cartesian_prod(letters, letters, letters)
    torch.testing.assert_close(
        again.probability(rows[:, :2], rows[:, 2]), table.probability(rows[:, :2], rows[:, 2]), rtol=1e-10, atol=0
    )
    lift = NgramStyle(table=again, weight=1.0)(rows[:, :2], torch.zeros(len(rows), table.size))
    assert torch.isfinite(lift).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing of the kind", "must hold the n-grams that it announces"),
        (ARPA.replace("\\end\\", ""), "and .end., got"),
        (ARPA[: ARPA.index("-0.5")], "must hold the n-grams that it announces"),
        (ARPA.replace("-0.5\tb </s>", "-0.5\tb"), "got line 14: .*a probability, 2 words and perhaps a weight"),
        (ARPA.replace("-0.5", "minus"), "got line 14"),
        (ARPA.replace("\\2-grams:", "\\3-grams:"), "order 2 must come next"),
    ],
)
def test_bad_arpa_files_say_where(text: str, says: str, tmp_path: Path) -> None:
    """Foreign, cut short, a damaged line."""
    (tmp_path / "m.arpa").write_text(text)
    with pytest.raises(FileFormatError, match=says):
        NgramTable.from_arpa(tmp_path / "m.arpa", tiny_tokenizer())


def test_an_absent_arpa_file_is_refused(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(FileFormatError, match="must be a file"):
        NgramTable.from_arpa(tmp_path / "m.arpa", tiny_tokenizer())
