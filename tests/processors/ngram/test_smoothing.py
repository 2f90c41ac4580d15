"""Smoothing: probabilities equal those of nltk, worked examples, and refused strengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import Lidstone, models
from nltk.util import everygrams

from logitkit.processors.ngram import SMOOTHING_NAMES, NgramTable, Smoothing
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.smoothing import FALLBACK_DISCOUNTS, modified_discounts
from reference.ngrams import every_context, modified_kneser_ney

DOCUMENTS = [[1, 2, 1, 2, 3], [2, 1]]
SMOOTHINGS = {
    "mle": (lambda order: models.MLE(order), None),
    "add-k": (lambda order: Lidstone(0.02, order), 0.02),
    "witten-bell": (lambda order: models.WittenBellInterpolated(order), None),
    "absolute-discounting": (lambda order: models.AbsoluteDiscountingInterpolated(order, discount=0.6), 0.6),
    "kneser-ney": (lambda order: models.KneserNeyInterpolated(order, discount=0.3), 0.3),
    "stupid-backoff": (lambda order: models.StupidBackoff(alpha=0.35, order=order), 0.35),
}
CORPORA = st.lists(st.lists(st.integers(0, 4), max_size=14), min_size=1, max_size=4).filter(any)


@pytest.mark.parametrize("name", SMOOTHINGS)
@given(CORPORA, st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_probabilities_are_those_of_nltk(name: str, corpus: Any, orders: int) -> None:
    """Every smoothing equals nltk to 1e-10 for every token after seen and unseen contexts of every length."""
    make, strength = SMOOTHINGS[name]
    model = make(orders)
    model.fit(
        [list(everygrams(map(str, document), max_len=orders)) for document in corpus],
        vocabulary_text=map(str, range(6)),
    )
    table = NgramTable.count(corpus, size=6, orders=orders, smoothing=name, strength=strength)
    table.smoothing.outcomes = len(model.vocab)
    contexts = every_context(table.orders, 6)
    chosen = contexts[torch.randperm(len(contexts), generator=torch.Generator().manual_seed(0))[:8]]
    for length in range(orders):
        for context in chosen[:, :length]:
            got = table.probability(context.expand(6, length), torch.arange(6))
            for token in range(6):
                try:
                    want = model.score(str(token), [str(t) for t in context.tolist()])
                except ZeroDivisionError:  # Kneser-Ney after a context that begins documents only
                    assert name == "kneser-ney"
                    continue
                assert abs(float(got[token]) - want) < 1e-10


def test_kneser_ney_by_hand() -> None:
    """With discount 1/2, P(2 | 1) = (2 - .5) / 2 + .25 P(2), where P(2) is 1 of 3 different bigrams."""
    table = NgramTable.count(DOCUMENTS, size=5, orders=2, smoothing="kneser-ney", strength=0.5)
    got = table.probability(torch.tensor([[1]]), torch.tensor([2]))
    torch.testing.assert_close(float(got), 0.75 + 0.25 / 3)


def test_modified_kneser_ney_by_hand() -> None:
    """P(2 | 1), P(1) and P of an unseen token, with KenLM's fallback discounts 0.5, 1 and 1.5.

    Bigrams: 1 2 twice, 2 1 twice, 2 3 once. Before 1 stand 2 and the beginning, before 2 stand 1 and the beginning,
    before 3 stands 2: the counts are 2, 2 and 1. P(1) = (2 - 1) / 5 + (2.5 / 5) / 5 = 0.3, P(3) = 0.5 / 5 + 0.1, and
    0.1 elsewhere. P(2 | 1) = (2 - 1) / 2 + 1/2 P(2).
    """
    table = NgramTable.count(DOCUMENTS, size=5, orders=2)
    assert table.smoothing.name == "modified-kneser-ney"
    none = torch.zeros(5, 0, dtype=torch.long)
    want = torch.tensor([0.1, 0.3, 0.3, 0.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(table.probability(none, torch.arange(5)), want)
    got = table.probability(torch.tensor([[1], [1]]), torch.tensor([2, 3]))
    torch.testing.assert_close(got, torch.tensor([0.65, 0.1], dtype=torch.float64))


LONG_CORPORA = st.lists(st.lists(st.integers(0, 4), max_size=40), min_size=1, max_size=8).filter(any)


@given(LONG_CORPORA, st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_modified_kneser_ney_is_that_of_the_papers(corpus: Any, orders: int) -> None:
    """Every probability equals the slow reference to 1e-9, after contexts of every length, seen and unseen."""
    table = NgramTable.count(corpus, size=6, orders=orders)
    contexts = every_context(table.orders, 6)
    chosen = contexts[torch.randperm(len(contexts), generator=torch.Generator().manual_seed(0))[:3]]
    for length in range(table.orders):
        for context in chosen[:, :length]:
            got = table.probability(context.expand(6, length), torch.arange(6))
            for token in range(6):
                want = modified_kneser_ney(corpus, table.orders, context.tolist(), token, 6)
                assert abs(float(got[token]) - want) < 1e-9


def test_modified_kneser_ney_estimates_its_discounts() -> None:
    """A seeded corpus of 3000 tokens, where every order has its own discounts and none falls back."""
    generator = torch.Generator().manual_seed(0)
    corpus = [(torch.rand(300, generator=generator) ** 3 * 30).long().tolist() for _ in range(10)]
    table = NgramTable.count(corpus, size=30, orders=3)
    got = table.probability(torch.tensor([corpus[0][:2]] * 3), torch.tensor([0, 7, 29]))
    want = [modified_kneser_ney(corpus, 3, corpus[0][:2], token, 30) for token in (0, 7, 29)]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-9)
    counts = torch.tensor([float(count) for count in table.levels[2].counts])
    assert modified_discounts(counts.numpy()) != FALLBACK_DISCOUNTS


@given(CORPORA, st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_the_default_sums_to_one(corpus: Any, orders: int) -> None:
    """After every context, seen, unseen or at the beginning or end of documents, the default sums to one."""
    table = NgramTable.count(corpus, size=6, orders=orders)
    for context in every_context(orders, 6)[::5]:
        total = table.probability(context.expand(6, len(context)), torch.arange(6)).sum()
        assert abs(float(total) - 1) < 1e-9


def test_kneser_ney_where_nltk_divides_by_zero() -> None:
    """A context that occurs only at the beginning of documents gets the probabilities of the lower order."""
    table = NgramTable.count([[1, 2, 3]], size=5, orders=3, smoothing="kneser-ney")
    shorter = table.probability(torch.zeros(5, 0, dtype=torch.long), torch.arange(5))
    torch.testing.assert_close(table.probability(torch.full((5, 1), 1), torch.arange(5)), shorter)
    alone = NgramTable.count([[1, 1, 2]], size=5, orders=1, smoothing="kneser-ney")
    torch.testing.assert_close(float(alone.probability(torch.zeros(1, 0).long(), torch.tensor([1]))), 2 / 3)


@pytest.mark.parametrize("name", [name for name in SMOOTHING_NAMES if name != "stupid-backoff"])
@given(CORPORA)
@settings(max_examples=10, deadline=None)
def test_probabilities_sum_to_one(name: str, corpus: Any) -> None:
    """Probabilities sum to one after every context; as in nltk, Kneser-Ney may exceed one after document beginnings."""
    corpus = [[4, 4, *document] for document in corpus]
    table = NgramTable.count(corpus, size=5, orders=3, smoothing=name)
    for context in table.ngrams(2).tolist():
        following = table.contexts(torch.tensor([context]))[0, 2]
        if int(table.levels[2].starts[following + 1]) > int(table.levels[2].starts[following]):
            total = table.probability(torch.tensor([context] * 5), torch.arange(5)).sum()
            assert abs(float(total) - 1) < 1e-9 or (name == "kneser-ney" and total > 1)


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_kneser_ney_without_a_bigram(orders: int) -> None:
    """Documents of one token have no bigram, so no token precedes another: P(1) is its relative frequency 2/3."""
    table = NgramTable.count([[1], [1], [2]], size=4, orders=orders, smoothing="kneser-ney", strength=0.5)
    got = table.probability(torch.zeros(4, 0, dtype=torch.long), torch.arange(4))
    torch.testing.assert_close(got, torch.tensor([0, 2 / 3, 1 / 3, 0], dtype=torch.float64))


def test_kneser_ney_where_a_token_only_begins_documents() -> None:
    """The bigrams are 1 2 and 1 3, so 1 follows no token: P is 0, 1/2 and 1/2, and P(2 | 1) = 1/4 + 1/2 P(2)."""
    table = NgramTable.count([[1, 2], [1, 3]], size=4, orders=2, smoothing="kneser-ney", strength=0.5)
    got = table.probability(torch.zeros(4, 0, dtype=torch.long), torch.arange(4))
    torch.testing.assert_close(got, torch.tensor([0, 0, 0.5, 0.5], dtype=torch.float64))
    got = table.probability(torch.full((4, 1), 1), torch.arange(4))
    torch.testing.assert_close(got, torch.tensor([0, 0, 0.5, 0.5], dtype=torch.float64))


def test_kneser_ney_of_a_middle_order_without_precursors() -> None:
    """The bigram 1 2 only begins documents, so the middle order has no mass after 1, and all of it goes to order 1.

    The documents are 1 2 and 3 4 5. Their bigrams give P(2) = P(4) = P(5) = 1/3. After 1 no bigram has a precursor.
    """
    table = NgramTable.count([[1, 2], [3, 4, 5]], size=6, orders=3, smoothing="kneser-ney", strength=0.5)
    got = table.probability(torch.full((6, 1), 1), torch.arange(6))
    torch.testing.assert_close(got, torch.tensor([0, 0, 1 / 3, 0, 1 / 3, 1 / 3], dtype=torch.float64))


def test_modified_kneser_ney_of_a_token_that_only_begins_documents() -> None:
    """The beginning of a document counts as one preceding token, so the tokens 1, 2 and 3 all have the count 1.

    With KenLM's fallback discounts P = 0.5 / 3 + (1.5 / 3) / 5 for each of them, and 0.1 for an unseen token.
    """
    table = NgramTable.count([[1, 2], [1, 3]], size=5, orders=2)
    got = table.probability(torch.zeros(5, 0, dtype=torch.long), torch.arange(5))
    torch.testing.assert_close(got, torch.tensor([0.1, 4 / 15, 4 / 15, 4 / 15, 0.1], dtype=torch.float64))


@pytest.mark.parametrize("name", ["kneser-ney", "absolute-discounting", "stupid-backoff"])
def test_strengths_at_the_ends_of_their_range(name: Any) -> None:
    """Discounts and factors of 0 and 1 are accepted; at 0 the seen bigrams have their relative frequencies."""
    for strength in (0.0, 1.0):
        assert Smoothing(name=name, strength=strength).as_data()["strength"] == strength
    table = NgramTable.count(DOCUMENTS, size=5, orders=2, smoothing=name, strength=0.0)
    got = table.probability(torch.full((5, 1), 2), torch.arange(5))
    torch.testing.assert_close(got, torch.tensor([0, 2 / 3, 0, 1 / 3, 0], dtype=torch.float64))


def test_stupid_backoff_of_an_entry_without_a_count() -> None:
    """Imported models may hold the bigram 1 2 with the count 0; it backs off: P(2 | 1) = 0.4 P(2) = 0.4 / 3."""
    single = Level(torch.tensor([1, 2]), torch.tensor([2, 1]), torch.tensor([0, 2]))
    pair = Level(torch.tensor([2]), torch.tensor([0]), torch.tensor([0, 1, 1]))
    table = NgramTable([single, pair], size=3, smoothing=Smoothing(name="stupid-backoff"))
    got = table.probability(torch.full((3, 1), 1), torch.arange(3))
    torch.testing.assert_close(got, torch.tensor([0, 0.8 / 3, 0.4 / 3], dtype=torch.float64))


def test_modified_kneser_ney_of_an_entry_without_a_count() -> None:
    """Token 1 is seen once and token 2 never, and no bigram: the adjusted counts are 1 and 0.

    With the fallback discount 1/2, P(1) = 1/2 + 1/2 * 1/3, and the other two tokens share the rest evenly.
    """
    single = Level(torch.tensor([1, 2]), torch.tensor([1, 0]), torch.tensor([0, 2]))
    nothing = torch.zeros(0, dtype=torch.long)
    table = NgramTable([single, Level(nothing, nothing, torch.zeros(3, dtype=torch.long))], size=3)
    got = table.probability(torch.zeros(3, 0, dtype=torch.long), torch.arange(3))
    torch.testing.assert_close(got, torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64))


def test_the_largest_discount_is_accepted() -> None:
    """With no count of 4 the third discount is 3, the largest in range: Y = 8 / 16 as in the docstring."""
    assert modified_discounts(np.array([1.0] * 8 + [2.0] * 4 + [3.0] * 2)) == (0.5, 1.25, 3.0)
