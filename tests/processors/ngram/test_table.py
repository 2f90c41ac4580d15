"""N-gram tables: counts, probabilities, look-up for a batch, files, and refused values."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import Lidstone, models
from nltk.util import everygrams
from safetensors.torch import save_file

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.ngram import SMOOTHING_NAMES, NgramTable, Smoothing, TableVocabulary, counting
from logitkit.processors.ngram.index import NO_CONTEXT, UNSEEN
from logitkit.registry.laws import tiny_tokenizer
from reference.ngrams import counted

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


def grams_of(table: NgramTable) -> list[Counter]:
    """Return the counts of a table as dictionaries."""
    return [
        Counter({tuple(gram): int(count) for gram, count in zip(table.ngrams(m).tolist(), level.counts, strict=True)})
        for m, level in enumerate(table.levels, 1)
    ]


def every_context(table: NgramTable, size: int) -> torch.Tensor:
    """Return all contexts of the longest order over ids 0 to size - 1, ``[contexts, orders - 1]``."""
    rows = list(itertools.product(range(size), repeat=table.orders - 1))
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), table.orders - 1)


def test_counts_by_hand() -> None:
    """Counts equal those made by hand; no pair crosses from 3 to 2, where a document ends."""
    assert grams_of(NgramTable.count(DOCUMENTS, size=5, orders=2)) == [
        {(1,): 3, (2,): 3, (3,): 1},
        {(1, 2): 2, (2, 1): 2, (2, 3): 1},
    ]


@given(CORPORA, st.integers(1, 5), st.sampled_from([5, 60_000, 300_000]), st.sets(st.integers(0, 4), max_size=2))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_dictionaries(corpus: Any, orders: int, size: int, special: set[int]) -> None:
    """Counts equal dictionary counts, for n-grams that fit into packed numbers and for longer ones."""
    documents = [[size - 1 - token for token in document] for document in corpus]
    excluded = frozenset(size - 1 - token for token in special)
    if all(token in excluded for document in documents for token in document):
        return
    table = NgramTable.count(documents, size=size, orders=orders, special=sorted(excluded))
    assert grams_of(table) == counted(documents, orders, excluded)
    for level in table.levels:
        assert (level.keys.diff() > 0).all() and int(level.starts[-1]) == len(level)


@given(CORPORA, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_tables_add_up(corpus: Any, orders: int) -> None:
    """Merged counts of documents equal the counts of all; documents in groups keep the counts of each."""
    parts = [counting.count(counting.join_documents([document], base=5), orders=orders, base=5) for document in corpus]
    merged = NgramTable(counting.merge(parts, base=5), size=5)
    assert grams_of(merged) == counted(corpus, orders)
    beside = NgramTable(counting.merge_as_groups(parts, base=5), size=5)
    rows = every_context(beside, 5)
    for group, part in enumerate(parts):
        alone = NgramTable(part, size=5)
        of_group = beside.contexts(rows, torch.full((len(rows),), group))
        got = beside.followers(orders, of_group[:, -1])
        want = alone.followers(orders, alone.contexts(rows)[:, -1])
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
        assert torch.equal(beside.levels[-1].counts[got[2]], alone.levels[-1].counts[want[2]])


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
    contexts = every_context(table, 6)
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


def test_contexts_of_a_batch() -> None:
    """Each row finds its own context: seen, unseen, interrupted by a special token or by padding, or too short."""
    table = NgramTable.count([[1, 2, 3, 1, 2, 4]], size=8, orders=3, special=[7])
    rows = torch.tensor([[1, 2], [2, 1], [7, 2], [-1, 2], [2, 7], [100, 2]])
    got = table.contexts(rows)
    assert (got[:, 0] == 0).all()
    assert (got[[0, 2, 3, 5], 1] == got[0, 1]).all() and got[4, 1] == NO_CONTEXT
    assert got[0, 2] >= 0 and got[1, 2] == UNSEEN and (got[2:, 2] == NO_CONTEXT).all()
    assert table.contexts(torch.zeros(2, 0).long()).tolist() == [[0, NO_CONTEXT, NO_CONTEXT]] * 2
    number, tokens, entries = table.followers(3, got[:, 2])
    assert number.tolist() == [0, 0] and tokens.tolist() == [3, 4]
    assert table.levels[2].counts[entries].tolist() == [1, 1]


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    """A saved and loaded table has the same arrays, special ids, smoothing, fingerprint and sources."""
    table = NgramTable.train(["the other text", "a text of its own"], tiny_tokenizer(), smoothing="witten-bell")
    table.save(tmp_path / "t.safetensors")
    again = NgramTable.load(tmp_path / "t.safetensors")
    assert grams_of(again) == grams_of(table)
    assert again.fingerprint == table.fingerprint and again.sources == table.sources
    assert again.special.tolist() == table.special.tolist() == TableVocabulary.of(tiny_tokenizer()).special
    assert repr(again) == repr(table) and again.smoothing.as_data() == table.smoothing.as_data()
    rows, tokens = torch.randint(0, 256, (50, 2)), torch.randint(0, 256, (50,))
    torch.testing.assert_close(again.probability(rows, tokens), table.probability(rows, tokens))
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    """A missing, truncated or foreign file, another version, and arrays that do not fit each raise an error."""
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    NgramTable.count(DOCUMENTS, size=5).save(good)
    with pytest.raises(FileFormatError, match="must be a file"):
        NgramTable.load(bad)
    for content in (good.read_bytes()[:-40], good.read_bytes()[:30], b"", b"\x80\x04cos\nsystem\n."):
        bad.write_bytes(content)
        with pytest.raises(FileFormatError, match="must be a whole safetensors file"):
            NgramTable.load(bad)
    save_file({"x": torch.zeros(2)}, str(bad))
    with pytest.raises(FileFormatError, match="got another safetensors file"):
        NgramTable.load(bad)
    about: dict[str, Any] = {"version": 2}
    save_file({"x": torch.zeros(2)}, str(bad), metadata={"format": "logitkit n-gram table", "about": json.dumps(about)})
    with pytest.raises(FileFormatError, match="must be of version 1, got 2"):
        NgramTable.load(bad)
    about = {"version": 1, "orders": 1, "counted": True}
    arrays = {"keys.1": torch.arange(3), "counts.1": torch.ones(2), "starts.1": torch.tensor([0, 3])}
    save_file(arrays, str(bad), metadata={"format": "logitkit n-gram table", "about": json.dumps(about)})
    with pytest.raises(FileFormatError, match="do not fit"):
        NgramTable.load(bad)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NgramTable.count(DOCUMENTS, size=5, orders=6), "orders must be a whole number from 1 to 5, got 6"),
        (lambda: NgramTable.count([[], []], size=5), "documents must be at least one token"),
        (lambda: NgramTable.count([[3, 3]], size=5, special=[3]), "documents must be at least one token"),
        (lambda: NgramTable.count(DOCUMENTS, size=5, smoothing="good-turing"), "name must be one of 'add-k'"),
        (lambda: Smoothing(name="mle", strength=1.0), "None for mle"),
        (lambda: Smoothing(name="kneser-ney", strength=1.5), "a discount of 0 to 1"),
        (lambda: Smoothing(name="add-k", strength=0.0), "a pseudo-count > 0"),
    ],
)
def test_bad_values_are_refused(make: Any, says: str) -> None:
    """A refused value is named with its parameter and rule."""
    with pytest.raises(ParameterError, match=says):
        make()


def test_another_tokenizer_is_refused() -> None:
    """A table whose ids come from no tokenizer is refused."""
    with pytest.raises(ModelError, match="must be trained with the generating model's tokenizer"):
        NgramTable.count(DOCUMENTS, size=5).check_tokenizer(tiny_tokenizer(), "ngram_style")
