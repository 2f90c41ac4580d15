"""Random re-splits of tokens: the same bytes, the same draws, and the uniform choice of the rule, by hand."""

from __future__ import annotations

import collections
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import sentencepiece_tokenizer
from logitkit.processors.canonical import TokenSplits
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
from reference.byte_covers import random_tokenizer

TEXTS = ("ab", "a", "b", "aba", "ba", None)  # token 5 is a special token
TOKENIZERS = {"merges": foreign_tokenizer, "sentencepiece": sentencepiece_tokenizer, "random": lambda: RANDOM}
RANDOM = random_tokenizer(0, merges=40)


def by_hand() -> TokenSplits:
    """Return the splits of a vocabulary of five tokens and a special one."""
    texts = tuple(None if text is None else text.encode() for text in TEXTS)
    return TokenSplits(
        Vocabulary(token_bytes=texts, special=frozenset([5]), added=frozenset(), style="plain", prefix=b"")
    )


def test_pairs_by_hand() -> None:
    """``aba`` is ``a ba`` or ``ab a``, ``ab`` is ``a b``; letters, special tokens and unknown ids have no pairs."""
    splits = by_hand()
    assert splits.pairs(3) == [(1, 4), (0, 1)]
    assert splits.pairs(0) == [(1, 2)] and splits.pairs(4) == [(2, 1)]
    assert [splits.pairs(token) for token in (1, 2, 5, 6)] == [[]] * 4


def test_tries_by_hand() -> None:
    """Two tries for four tokens: the first always splits one, and the second can hit a letter and is lost."""
    splits = by_hand()
    lengths = {len(splits.resplit([3, 0, 3, 0], share=0.5, number=number)) for number in range(40)}
    assert lengths == {5, 6}
    assert splits.resplit([1, 2], share=1.0) == [1, 2]
    assert splits.resplit([], share=1.0) == []
    assert splits.resplit([0], share=0.01) == [1, 2], "at least one try"


def test_places_and_pairs_are_drawn_uniformly() -> None:
    """One try on ``aba aba``: four results of probability 1/4; of 2000 draws, 500 each within 5 deviations (97)."""
    splits = by_hand()
    drawn = collections.Counter(tuple(splits.resplit([3, 3], share=0.5, number=number)) for number in range(2000))
    assert set(drawn) == {(1, 4, 3), (0, 1, 3), (3, 1, 4), (3, 0, 1)}
    assert all(abs(count - 500) < 97 for count in drawn.values())


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(
    text=st.text("the other 🦜é\n1", max_size=24) | st.text(max_size=8),
    seed=st.integers(0, 9),
    share=st.floats(0.01, 1),
)
def test_the_text_stays(name: str, text: str, seed: int, share: float) -> None:
    """Bytes and decoded text are the same, tokens only become more, and equal arguments give equal splits."""
    tokenizer: Any = TOKENIZERS[name]()
    vocabulary = Vocabulary.of(tokenizer)
    tokens = tokenizer(text)["input_ids"]
    splits = TokenSplits(vocabulary)
    again = splits.resplit(tokens, share=share, seed=seed)
    assert vocabulary.join(again) == vocabulary.join(tokens)
    assert tokenizer.decode(again) == tokenizer.decode(tokens)
    assert len(tokens) <= len(again) <= len(tokens) + max(1, int(share * len(tokens)))
    assert again == TokenSplits(vocabulary).resplit(list(tokens), share=share, seed=seed)


def test_seeds_numbers_and_tokens_change_the_draws() -> None:
    splits, tokens = by_hand(), [3, 0, 4] * 8
    assert len({tuple(splits.resplit(tokens, share=0.5, seed=seed)) for seed in range(5)}) == 5
    assert len({tuple(splits.resplit(tokens, share=0.5, number=number)) for number in range(5)}) == 5


def test_special_and_added_tokens_stay_and_are_no_parts() -> None:
    """With the added token ``the``, neither is it split, nor do its bytes stand for a part of another token."""
    tokenizer = copy.deepcopy(foreign_tokenizer())
    tokenizer.add_tokens(["there"])
    tokens = tokenizer("<begin>there the<end>")["input_ids"]
    splits = TokenSplits(Vocabulary.of(tokenizer))
    kept = {number for number in tokens if tokenizer.convert_ids_to_tokens(number) in ("<begin>", "<end>", "there")}
    assert len(kept) == 3
    for number in range(20):
        again = splits.resplit(tokens, share=1.0, number=number)
        assert [token for token in again if token in kept] == [token for token in tokens if token in kept]


def test_a_byte_tokenizer_has_nothing_to_split() -> None:
    splits = TokenSplits(Vocabulary.of(tiny_tokenizer(), 272))
    assert (
        splits.resplit(tiny_tokenizer()("the text")["input_ids"], share=1.0) == tiny_tokenizer()("the text").input_ids
    )


def test_a_byte_fallback_is_no_part_where_a_token_of_the_letter_exists() -> None:
    """Of two tokens with the bytes of ``a``, a split writes the one that the tokenizer itself writes."""
    tokenizer = sentencepiece_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    doubled = [ids for ids in vocabulary.ids_of.values() if len(ids) > 1]
    splits = TokenSplits(vocabulary)
    used = {part for token in range(len(vocabulary)) for pair in splits.pairs(token) for part in pair}
    assert all(not used & set(ids[:-1]) for ids in doubled)
