"""Formulas of style injection: values computed by hand, and the processor's use of the same functions."""

from __future__ import annotations

import math

import pytest
import torch

from logitkit.processors.ngram import NgramStyle, NgramTable, default_order_weights
from logitkit.processors.ngram.formulas import (
    js_bits_per_mass,
    lift_evidence,
    literal_evidence,
    mixed_log_probabilities,
    normalizer,
    ratio_evidence,
)

SIZE = 6
TABLE = NgramTable.count([[1, 2, 1, 2, 1, 3, 1, 4]], size=SIZE, orders=2, smoothing="mle")
IDS = torch.tensor([[1], [2], [5]])
SCORES = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(0))


def test_default_order_weights_are_the_papers() -> None:
    """The default weights of three orders are 0.1, 0.3 and 0.6."""
    assert default_order_weights(3) == pytest.approx([0.1, 0.3, 0.6])


def test_lift_is_the_difference_of_add_k_log_probabilities() -> None:
    """Lift equals the add-k log-probability of a token minus that of an unseen token, for any size of the context."""
    k, size = 0.5, 10
    counts = torch.tensor([0.0, 1.0, 7.0], dtype=torch.float64)
    for context in (8.0, 100.0):
        add_k = ((counts + k) / (context + k * size)).log() - math.log(k / (context + k * size))
        torch.testing.assert_close(lift_evidence(counts, k=k), add_k)


def test_literal_evidence_is_never_positive() -> None:
    """The published evidence log P is at most 0, and at least the logarithm of the floor."""
    evidence = literal_evidence(torch.tensor([1.0, 0.5, 0.0]), floor=0.25)
    torch.testing.assert_close(evidence, torch.tensor([1.0, 0.5, 0.25]).log())


def test_ratio_evidence_is_never_negative() -> None:
    """Evidence of a ratio below 1 is 0."""
    evidence = ratio_evidence(torch.tensor([0.5, 0.1, 0.0]), torch.tensor([0.25, 0.2, 0.5]))
    torch.testing.assert_close(evidence, torch.tensor([math.log(2), 0.0, 0.0]))


def test_normalizer_is_zero_without_mass() -> None:
    """The shift restores the mass of a row, and is 0 where the mass before or after is 0."""
    shift = normalizer(torch.tensor([0.5, 0.0, 0.5]), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(shift, torch.tensor([[-math.log(2)], [0.0], [0.0]]))


def test_js_bits_of_disjoint_distributions_sum_to_one() -> None:
    """The mass that vanishes contributes half a bit; equal distributions contribute nothing."""
    torch.testing.assert_close(js_bits_per_mass(torch.tensor([0.0, 1.0])), torch.tensor([0.5, 0.0]))


def test_the_processor_adds_the_lift_evidence() -> None:
    """`NgramStyle` moves scores by the weighted sum of `lift_evidence`, up to one shift for each row."""
    weights, weight, k = [0.25, 0.75], 0.5, 0.1
    evidence = torch.zeros(3, SIZE)
    for order, order_weight in enumerate(weights, 1):
        followers = TABLE.followers(order, TABLE.contexts(IDS)[:, order - 1])
        counts = TABLE.levels[order - 1].counts[followers.entries]
        evidence[followers.rows, followers.tokens] += order_weight * lift_evidence(counts, k=k)
    expected = (SCORES + weight * evidence).log_softmax(-1)
    got = NgramStyle(table=TABLE, weight=weight, k=k, order_weights=weights)(IDS, SCORES)
    torch.testing.assert_close(got.log_softmax(-1), expected)


def test_the_processor_mixes_probabilities() -> None:
    """`NgramStyle` with the rule ``mixture`` equals `mixed_log_probabilities` where nothing is special."""
    rows, scores = IDS[:2], SCORES[:2]  # after 5 the table has no n-gram of order 2
    q = torch.stack([TABLE.probability(rows, torch.full((2,), token)) for token in range(SIZE)], dim=1).float()
    expected = mixed_log_probabilities(scores.log_softmax(-1), q.log(), torch.tensor(0.5))
    got = NgramStyle(table=TABLE, weight=0.5, rule="mixture", order_weights=[0.0, 1.0])(rows, scores)
    torch.testing.assert_close(got, expected)
