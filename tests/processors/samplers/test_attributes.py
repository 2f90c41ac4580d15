"""Attributes that follow from tokens: every row and candidate at once, and each row by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.processors.samplers import attribute_folds as folds

from logitkit.processors.samplers.attributes import Avoids, Contains, Length, Varied

LONG = b"abracadabra abracadabra"  # more bytes than are followed one by one
TOKENS = [b"a", b"b", b"ab", None, b"ra", LONG, "\u00e9".encode(), "\u00e9".encode()[:1], b"", b"cad"]
TEXTS = [["a"], ["abra"], ["abab", "ra a"], ["a" * 3, "\u00e9a", "bracadabra ab"], ["abracadabra abracadabraab"]]


def row(tokens: list[int]) -> torch.Tensor:
    return torch.tensor([tokens], dtype=torch.long)


def read(attribute: Any, tokens: list[int], prompt: int = 0) -> torch.Tensor:
    """The state after tokens, ``[1, size]``."""
    state = attribute.initial(torch.tensor([prompt]))
    for place, token in enumerate(tokens):
        state = attribute.advance(state, row(tokens[:place]), row([token]))[:, 0]
    return state


def test_length_is_a_martingale() -> None:
    """An unfinished text ends with probability 1 / (tokens + 1), and its value is the mean over both."""
    for tokens, spread in ((0, 1.0), (3, 0.7), (20, 4.0)):
        length, hazard = Length(tokens, spread), 1 / (tokens + 1)
        for count in range(2 * tokens + 3):
            ended, longer = (math.exp(length.log_probability(n, e)) for n, e in ((count, True), (count + 1, False)))
            mean = hazard * ended + (1 - hazard) * longer
            assert math.isclose(math.exp(length.log_probability(count, False)), mean, rel_tol=1e-9, abs_tol=1e-12)


def test_occurrences_overlap() -> None:
    """The search for a text falls back to its longest beginning: "aaab" contains "aab"."""
    contains, values, tokens = Contains(["aab", "bb"], [b"aa", b"b", b"abb"]), [], [0, 0, 1, 2, 0]
    for count in range(1, 6):
        values.append(contains.value(read(contains, tokens[:count]), count, False).item())
    assert values == [-3.0, -3.0, -1.0, 0.0, 0.0]


def test_groups_by_hand() -> None:
    """Behind 5 6 7 5 6, the groups of two "6 7" and "6 6": the first occurred. Of one token, both did."""
    tails, candidates = row([5, 6, 7, 5, 6]), row([7, 6, 8])
    for tokens, before, want in ((2, 1, [2, 1, 1]), (1, 2, [3, 3, 2]), (3, 0, [1, 0, 0]), (6, 0, [0, 0, 0])):
        varied = Varied(tokens)
        states = read(varied, tails[0].tolist())
        assert states.tolist() == [[before]]
        assert varied.advance(states, tails, candidates)[0, :, 0].tolist() == want


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=9), st.sampled_from(TEXTS), st.integers(0, 3), st.booleans())
def test_texts_are_found_as_by_the_search_of_one_row(
    tokens: list[int], texts: list[str], removed: int, ended: bool
) -> None:
    """Tokens of no bytes, of a part of a character, of many bytes, and ids without a token."""
    for kind, reference in ((Contains, folds.Contains), (Avoids, folds.Avoids)):
        own: Any = kind(texts, TOKENS, [5, removed])
        slow: Any = reference(texts, TOKENS)
        state = slow.initial(b"x" * removed)
        for token in tokens:
            state = slow.advance(state, token)
        got = own.value(read(own, tokens, prompt=1), len(tokens), ended)
        assert got.item() == pytest.approx(slow.value(state, ended), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=14), st.integers(1, 5))
def test_groups_are_found_as_by_the_set_of_one_row(tokens: list[int], size: int) -> None:
    slow, own = folds.Varied(size), Varied(size)
    state = slow.initial(b"")
    for token in tokens:
        state = slow.advance(state, token)
    assert own.value(read(own, tokens), len(tokens), False).item() == slow.value(state, False)


def test_many_rows_and_candidates_at_once() -> None:
    """Each row and candidate has the value that it has alone."""
    contains = Contains(["abra", "ab"], TOKENS)
    rows = torch.tensor([[0, 1], [2, 4], [5, 3]])
    states = torch.cat([read(contains, each) for each in rows.tolist()])
    candidates = torch.arange(12).expand(3, -1)
    values = contains.value(contains.advance(states, rows, candidates), 3, False)
    for number, each in enumerate(rows.tolist()):
        for token in range(12):
            assert values[number, token] == contains.value(read(contains, [*each, token]), 3, False)[0]
