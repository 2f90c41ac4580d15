"""N-gram tables: counted as by hand, smoothed as nltk does, looked up for a batch, saved and refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import Lidstone, models
from nltk.util import everygrams
from safetensors.torch import save_file

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.ngram import counting
from logitkit.processors.ngram.evidence import default_weights, mixture, ngrams
from logitkit.processors.ngram.index import NONE, UNSEEN
from logitkit.processors.ngram.smoothing import NAMES, Smoothing
from logitkit.processors.ngram.table import NgramTable, of_tokenizer
from logitkit.registry.laws import tiny_tokenizer
from reference.ngrams import counted

DOCUMENTS = [[1, 2, 1, 2, 3], [2, 1]]  # by hand below
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
    """The counts of a table as dictionaries."""
    return [
        Counter({tuple(gram): int(count) for gram, count in zip(ngrams(table, m).tolist(), level.counts, strict=True)})
        for m, level in enumerate(table.levels, 1)
    ]


def every_context(table: NgramTable, size: int) -> torch.Tensor:
    """All contexts of the longest order over ids 0 to size - 1, ``[contexts, orders - 1]``."""
    rows = list(itertools.product(range(size), repeat=table.orders - 1))
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), table.orders - 1)


def test_counts_by_hand() -> None:
    """1 and 2 stand three times each, (1, 2) twice; no pair crosses from 3 to 2 where a document ends."""
    assert grams_of(NgramTable.count(DOCUMENTS, size=5, orders=2)) == [
        {(1,): 3, (2,): 3, (3,): 1},
        {(1, 2): 2, (2, 1): 2, (2, 3): 1},
    ]


@given(CORPORA, st.integers(1, 5), st.sampled_from([5, 60_000, 300_000]), st.sets(st.integers(0, 4), max_size=2))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_dictionaries(corpus: Any, orders: int, size: int, special: set[int]) -> None:
    """Any vocabulary, packed into one number or not; special tokens break."""
    documents = [[size - 1 - token for token in document] for document in corpus]
    banned = frozenset(size - 1 - token for token in special)
    if all(token in banned for document in documents for token in document):
        return
    table = NgramTable.count(documents, size=size, orders=orders, special=sorted(banned))
    assert grams_of(table) == counted(documents, orders, banned)
    for level in table.levels:
        assert (level.keys.diff() > 0).all() and int(level.starts[-1]) == len(level)


@given(CORPORA, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_tables_add_up(corpus: Any, orders: int) -> None:
    """Documents counted one by one and merged, or side by side each in its own group."""
    parts = [counting.count(counting.stream([document], base=5), orders=orders, base=5) for document in corpus]
    merged = NgramTable(counting.merge(parts, base=5), size=5)
    assert grams_of(merged) == counted(corpus, orders)
    beside = NgramTable(counting.side_by_side(parts, base=5), size=5)
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
    """To 1e-10 in float64, for every token after every context, seen or not, of every length."""
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
    """Discount 1/2: P(2 | 1) = (2 - .5) / 2 + .25 P(2), and P(2) is 1 of 3 kinds of bigram."""
    table = NgramTable.count(DOCUMENTS, size=5, orders=2, smoothing="kneser-ney", strength=0.5)
    got = table.probability(torch.tensor([[1]]), torch.tensor([2]))
    torch.testing.assert_close(float(got), 0.75 + 0.25 / 3)


def test_kneser_ney_where_nltk_divides_by_zero() -> None:
    """A context that begins documents only has no continuation count: the lower order stands."""
    table = NgramTable.count([[1, 2, 3]], size=5, orders=3, smoothing="kneser-ney")
    shorter = table.probability(torch.zeros(5, 0, dtype=torch.long), torch.arange(5))
    torch.testing.assert_close(table.probability(torch.full((5, 1), 1), torch.arange(5)), shorter)
    alone = NgramTable.count([[1, 1, 2]], size=5, orders=1, smoothing="kneser-ney")
    torch.testing.assert_close(float(alone.probability(torch.zeros(1, 0).long(), torch.tensor([1]))), 2 / 3)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "stupid-backoff"])
@given(CORPORA)
@settings(max_examples=10, deadline=None)
def test_probabilities_sum_to_one(name: str, corpus: Any) -> None:
    """After every context; as in nltk, Kneser-Ney gives more after what also begins documents."""
    corpus = [[4, 4, *document] for document in corpus]
    table = NgramTable.count(corpus, size=5, orders=3, smoothing=name)
    for context in ngrams(table, 2).tolist():
        following = table.contexts(torch.tensor([context]))[0, 2]
        if int(table.levels[2].starts[following + 1]) > int(table.levels[2].starts[following]):
            total = table.probability(torch.tensor([context] * 5), torch.arange(5)).sum()
            assert abs(float(total) - 1) < 1e-9 or (name == "kneser-ney" and total > 1)


@given(CORPORA, st.integers(1, 4), st.sampled_from(NAMES))
@settings(max_examples=30, deadline=None)
def test_dense_rows_are_the_probabilities(corpus: Any, orders: int, name: str) -> None:
    """With all weight on one order, a mixture is that order's smoothed model, for rows of a batch together."""
    table = NgramTable.count(corpus, size=6, orders=orders, smoothing=name)
    rows = every_context(table, 6)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))][:20]
    contexts = table.contexts(rows)
    seen = contexts[:, -1] >= 0
    weights = [0.0] * (orders - 1) + [1.0]
    got = mixture(table, contexts, weights, 8)[seen]
    want = torch.stack([table.probability(rows[seen], torch.full((int(seen.sum()),), t)) for t in range(6)], 1)
    torch.testing.assert_close(got[:, :6].double(), want, rtol=1e-5, atol=1e-7)


def test_contexts_of_a_batch() -> None:
    """Seen, unseen, broken by a special token or by padding, and too short; each row on its own."""
    table = NgramTable.count([[1, 2, 3, 1, 2, 4]], size=8, orders=3, special=[7])
    rows = torch.tensor([[1, 2], [2, 1], [7, 2], [-1, 2], [2, 7], [100, 2]])
    got = table.contexts(rows)
    assert (got[:, 0] == 0).all()
    assert (got[[0, 2, 3, 5], 1] == got[0, 1]).all() and got[4, 1] == NONE
    assert got[0, 2] >= 0 and got[1, 2] == UNSEEN and (got[2:, 2] == NONE).all()
    assert table.contexts(torch.zeros(2, 0).long()).tolist() == [[0, NONE, NONE]] * 2
    number, tokens, entries = table.followers(3, got[:, 2])
    assert number.tolist() == [0, 0] and tokens.tolist() == [3, 4]
    assert table.levels[2].counts[entries].tolist() == [1, 1]


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    """Arrays, special ids, smoothing, fingerprint and sources; mapped, not read."""
    table = NgramTable.train(["the other text", "a text of its own"], tiny_tokenizer(), smoothing="witten-bell")
    table.save(tmp_path / "t.safetensors")
    again = NgramTable.load(tmp_path / "t.safetensors")
    assert grams_of(again) == grams_of(table)
    assert again.fingerprint == table.fingerprint and again.sources == table.sources
    assert again.special.tolist() == table.special.tolist() == of_tokenizer(tiny_tokenizer())["special"]
    assert repr(again) == repr(table) and again.smoothing.as_data() == table.smoothing.as_data()
    rows, tokens = torch.randint(0, 256, (50, 2)), torch.randint(0, 256, (50,))
    torch.testing.assert_close(again.probability(rows, tokens), table.probability(rows, tokens))
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    """Absent, truncated, foreign, another version, arrays that do not fit: one error each, and no code is run."""
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
    """By name, rule and value."""
    with pytest.raises(ParameterError, match=says):
        make()


def test_another_tokenizer_is_refused() -> None:
    """By fingerprint, and so is a table of ids that are from none."""
    with pytest.raises(ModelError, match="must be trained with the generating model's tokenizer"):
        NgramTable.count(DOCUMENTS, size=5).check_tokenizer(tiny_tokenizer(), "ngram_style")


def test_default_weights_are_the_papers() -> None:
    """0.1, 0.3, 0.6 for three orders."""
    np.testing.assert_allclose(default_weights(3), [0.1, 0.3, 0.6])
