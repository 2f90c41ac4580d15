"""The pairwise merge rule of BPE: worked examples, and comparison with re-encoding."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.tokens import CanonicalRules, Vocabulary
from logitkit.processors.tokens.merge_derivation import NEVER, MergeDerivation
from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.tokenizer_description import description
from reference.byte_covers import random_tokenizer


def test_merges_by_hand() -> None:
    """If "a b" merges before "b c", "abc" becomes "ab" "c"; in "aaa" the two left letters merge."""
    rule = MergeRule({"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "aa": 5}, ["a b", "b c", "a a"])
    assert rule.allows(3, 2) and not rule.allows(0, 4) and not rule.allows(0, 1)
    assert rule.allows(5, 0) and not rule.allows(0, 5)
    assert [rule.allows(3, right) for right in range(6)] == rule.successors(3).tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), picks=st.lists(st.integers(0, 999), min_size=2, max_size=5))
def test_the_pairwise_rule_decides_whole_sequences(seed: int, picks: list[int]) -> None:
    """Inside a word, a sequence is canonical exactly if all its pairs of neighbours are allowed."""
    tokenizer = random_tokenizer(seed, letters=b"ab", merges=10, split=False)
    rule = CanonicalRules(tokenizer, Vocabulary.of(tokenizer))
    known = [number for number, text in enumerate(rule.vocabulary.token_bytes) if text and rule.writable[number]]
    ids = [known[pick % len(known)] for pick in picks]
    pairs = all(rule.merge_rule.allows(left, right) for left, right in itertools.pairwise(ids))
    assert pairs == rule.is_canonical(ids)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_successors_are_the_allowed_neighbours(seed: int) -> None:
    """The index of the merges gives for every token exactly the neighbours that no merge across a boundary joins."""
    tokenizer = random_tokenizer(seed, letters=b"ab", merges=12, split=False)
    model = description(tokenizer)["model"]
    rule, derivation = MergeRule(model["vocab"], model["merges"]), MergeDerivation(model["vocab"], model["merges"])
    reachable = np.flatnonzero(rule.reachable).tolist()
    for left in range(rule.size):
        want = [right for right in reachable if derivation.first_merge(left, right) == NEVER]
        assert np.flatnonzero(rule.successors(left)).tolist() == (want if left in reachable else [])


def test_a_merge_whose_part_has_a_later_rank() -> None:
    """The merge "ab c" is listed before "a b"; merging "abc" gives "ab" first and then "abc", so all are reachable."""
    rule = MergeRule({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bx": 5}, ["ab c", "a b", "b x"])
    assert rule.reachable.tolist() == [True, True, True, True, True, False]
    assert not rule.allows(3, 2) and rule.allows(4, 0) and not rule.allows(0, 5)


def test_a_rule_without_tokens() -> None:
    """An empty vocabulary has no ids."""
    rule = MergeRule({}, [])
    assert rule.size == 0 and rule.reachable.tolist() == []
