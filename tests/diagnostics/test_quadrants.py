"""Quadrants and carriers: by hand, as properties, and the intervals against a slow bootstrap."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.diagnostics import carriers, entropy_quadrants

tokens = st.tuples(st.floats(0, 5), st.floats(0, 1))
texts = st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=5)


def test_worked_example() -> None:
    """By hand: two tokens are sure, and one of them is wrong, with 0.6 of a divergence of 1.5."""
    found = entropy_quadrants([[0.0, 0.5], [2.0, 3.0]], [[0.0, 0.6], [0.1, 0.8]], divergence=0.2)
    assert found.entropy == 1.25 and [part.tokens for part in found.quadrants] == [1, 1, 1, 1]
    assert [part.divergence.value for part in found.quadrants] == pytest.approx([0, 0.4, 0.1 / 1.5, 0.8 / 1.5])
    assert found.missed.value == 0.5 and found.units == "" and math.isnan(found.missed.low)


def test_thresholds_are_not_above_themselves() -> None:
    """A token at a threshold is sure and alike; given thresholds hold."""
    found = entropy_quadrants([[1.0, 1.1]], [[0.5, 0.6]], divergence=0.5, entropy=1.0)
    assert [part.tokens for part in found.quadrants] == [1, 0, 0, 1] and found.entropy == 1.0


@settings(max_examples=30)
@given(texts, st.floats(0, 1))
def test_shares_by_counting(given_texts: list[list[tuple[float, float]]], threshold: float) -> None:
    """The shares are those of a loop, and sum to 1, as do those of the divergence where there is one."""
    columns = [[[token[side] for token in text] for text in given_texts] for side in (0, 1)]
    found = entropy_quadrants(*columns, divergence=threshold)
    every = [token for text in given_texts for token in text]
    counts = [0, 0, 0, 0]
    for entropy, divergence in every:
        counts[2 * (entropy > found.entropy) + (divergence > threshold)] += 1
    assert [part.tokens for part in found.quadrants] == counts
    assert sum(part.share.value for part in found.quadrants) == pytest.approx(1)
    if sum(divergence for _, divergence in every) > 0:
        assert sum(part.divergence.value for part in found.quadrants) == pytest.approx(1)
    assert math.isnan(found.missed.value) == (counts[1] + counts[3] == 0)


def test_intervals_draw_texts_or_blocks() -> None:
    """From 8 texts on texts are drawn, below that blocks of 32 tokens; the limits are those of a slow bootstrap."""
    generator = random.Random(0)
    lengths = [generator.randint(10, 30) for _ in range(12)]
    high = [[generator.random() for _ in range(count)] for count in lengths]
    apart = [[generator.random() ** (1 + number % 3) for _ in range(count)] for number, count in enumerate(lengths)]
    found = entropy_quadrants(high, apart, divergence=0.5, entropy=0.5)
    assert found.units == "12 texts"
    units = [
        (sum(h <= 0.5 and d > 0.5 for h, d in zip(*text, strict=True)), len(text[0]))
        for text in zip(high, apart, strict=True)
    ]
    drawn = []
    for _ in range(4000):
        again = [generator.choice(units) for _ in units]
        drawn.append(sum(part for part, _ in again) / sum(whole for _, whole in again))
    drawn.sort()
    share = found.quadrants[1].share
    assert (share.low, share.high) == pytest.approx((drawn[100], drawn[3900]), abs=0.02)
    assert share.low < share.value < share.high
    joined = [[[value for text in column for value in text]] for column in (high, apart)]
    blocks = entropy_quadrants(*joined, divergence=0.5, entropy=0.5)
    count = -(-sum(lengths) // 32)
    assert blocks.units == f"{count} blocks of 32 tokens" and blocks.quadrants[1].share.value == share.value


def test_a_share_of_zero_has_an_interval() -> None:
    """By hand: 0 of 8 texts has the limits 0 and z^2 / (8 + z^2) of Wilson, and no point."""
    found = entropy_quadrants([[1.0]] * 8, [[0.0]] * 8, divergence=0.1, entropy=2.0)
    assert found.quadrants[3].share == pytest.approx((0, 0, 3.8415 / 11.8415), abs=1e-4)
    assert found.quadrants[0].share == pytest.approx((1, 8 / 11.8415, 1), abs=1e-4)
    assert math.isnan(found.quadrants[0].divergence.value) and math.isnan(found.missed.value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_carriers_by_adding(divergences: list[float]) -> None:
    found, total = carriers(divergences), sum(divergences)
    for share, value in found.items():
        if total == 0:
            assert math.isnan(value)
            continue
        count, carried = 0, 0.0
        while carried < share * total * (1 - 1e-9):
            carried += sorted(divergences, reverse=True)[count]
            count += 1
        assert value == pytest.approx(max(1, count) / len(divergences))


def test_infinite_divergences_have_no_shares() -> None:
    found = entropy_quadrants([[0.0, 1.0]], [[math.inf, 0.0]], divergence=0.1)
    assert found.quadrants[1].tokens == 1 and math.isnan(found.quadrants[1].divergence.value)
    assert all(math.isnan(value) for value in carriers([math.inf, 1.0]).values())
