"""The law of texts under `rewind` equals the enumeration of every order of tries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tests.processors.searches.rewind_reference import began
from tests.processors.searches.tables import END, LENGTH, PROMPT, ended, four_token_model

from logitkit.processors.searches import Rewind
from logitkit.processors.tokens import Vocabulary

SPELLING = (b"a", b"b", b"ca", None)  # of the model of four tokens
PHRASES = ["bbb", "aa", "cab"]


def small_vocabulary() -> Vocabulary:
    return Vocabulary(token_bytes=SPELLING, special=frozenset({END}), added=frozenset(), style="plain", prefix=b"")


@cache
def law(row: tuple[int, ...]) -> list[float]:
    """The distribution behind a row of the model of four tokens, by a forward over the row."""
    with torch.no_grad():
        logits = four_token_model()(torch.tensor([row])).logits[0, -1]
    values: list[float] = logits.double().softmax(-1).tolist()
    return values


def completes(new: tuple[int, ...]) -> int | None:
    """The place to which a text of the model of four tokens goes back."""
    found = began([SPELLING[token] or b"" for token in (*PROMPT, *new)], PHRASES)
    return None if found is None else max(found - len(PROMPT), 0)


def outcomes(new: tuple[int, ...] = ()) -> dict[Any, float]:
    """Probability of each text, and of each place to which the row goes back, from a text on: every order of tries."""
    found: dict[Any, float] = {}

    def add(key: Any, value: float) -> None:
        found[key] = found.get(key, 0.0) + value

    def tried(forbidden: frozenset[int], weight: float) -> None:
        p = law((*PROMPT, *new))
        left = [token for token in range(len(p)) if token not in forbidden]
        if not left:
            add(len(new) - 1, weight)
        for token in left:
            share, longer = weight * p[token] / sum(p[one] for one in left), (*new, token)
            place = completes(longer)
            behind = {longer: 1.0} if token == END or len(longer) == LENGTH else outcomes(longer)
            for key, value in ({place: 1.0} if place is not None else behind).items():
                if key == len(new):
                    tried(forbidden | {token}, share * value)
                else:
                    add(key, share * value)

    tried(frozenset(), 1.0)
    return found


def test_the_formula_of_the_docstring() -> None:
    """The sum over sequences of tries gives the probability of each first token."""
    p, law_of_texts = law(PROMPT), outcomes()
    fails = []
    for token in range(4):
        place = completes((token,))
        behind = {(token,): 1.0} if token == END else outcomes((token,))
        fails.append(1.0 if place == 0 else behind.get(0, 0.0))

    def tries(others: list[int]) -> Iterator[tuple[int, ...]]:
        for count in range(len(others) + 1):
            yield from itertools.permutations(others, count)

    assert sum(law_of_texts.values()) == pytest.approx(1)
    for token in range(4):
        total = 0.0
        for order in tries([one for one in range(4) if one != token]):
            weight, left = 1.0, 1.0
            for one in order:
                weight, left = weight * p[one] * fails[one] / left, left - p[one]
            total += weight * p[token] * (1 - fails[token]) / left
        assert total == pytest.approx(sum(value for text, value in law_of_texts.items() if text[0] == token))


def test_samples_have_the_stated_law() -> None:
    """Chi-squared of 300 texts against enumeration; a false alarm has probability 0.001. Masking is told apart."""
    search = Rewind(phrases=PHRASES, vocabulary=small_vocabulary())
    torch.manual_seed(1)
    ids = four_token_model().generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT)),
        custom_generate=search,
        do_sample=True,
        top_k=0,
        num_return_sequences=300,
        max_new_tokens=LENGTH,
    )
    texts = [ended(row) for row in ids[:, len(PROMPT) :].tolist()]
    want = outcomes()
    assert set(texts) <= set(want) and len(want) > 8

    def pvalue(expected: dict[Any, float]) -> float:
        large = [text for text, value in expected.items() if 300 * value >= 5]
        counts = [texts.count(text) for text in large]
        means = [300 * expected[text] for text in large]
        rest = 300 - sum(counts), 300 - sum(means)
        counts, means = ([*counts, rest[0]], [*means, rest[1]]) if rest[1] > 1 else (counts, means)
        return float(chisquare(counts, [value * sum(counts) / sum(means) for value in means]).pvalue)

    assert pvalue(want) > 0.001
    masked: dict[Any, float] = {}
    for text in want:
        share = 1.0
        for place, token in enumerate(text):
            p = law((*PROMPT, *text[:place]))
            allowed = [one for one in range(4) if completes((*text[:place], one)) is None]
            share *= p[token] / sum(p[one] for one in allowed)
        masked[text] = share
    assert pvalue(masked) < 0.001
