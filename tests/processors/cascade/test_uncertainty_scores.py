"""Uncertainty scores by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import digamma

from logitkit.processors.cascade import aleatoric_uncertainty, margin_uncertainty, uncertainty

LOGP = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.0]]).log()


def test_uncertainty_is_one_minus_the_inverse_perplexity() -> None:
    """A uniform row over 4 scores 1 - 1/4, a one-hot row 0; (.5, .3, .2) has an entropy of 1.0297 nats."""
    assert uncertainty(LOGP).tolist() == pytest.approx([0.75, 0.0, 1 - math.exp(-1.0296530)])


def test_margin_uncertainty_compares_the_two_best() -> None:
    """A tie scores 1, a one-hot row 0, and .5 against .3 scores .8."""
    assert margin_uncertainty(LOGP).tolist() == pytest.approx([1.0, 0.0, 0.8])


def test_aleatoric_uncertainty_is_the_expected_entropy() -> None:
    """Logits (3, 1, -1, -3), mean 0: evidence (3, 1), of 4: 3/4 (1/4) + 1/4 (1/2 + 1/3 + 1/4) nats, over ln 10.

    digamma(5) - digamma(4) = 1/4 and digamma(5) - digamma(2) = 1/2 + 1/3 + 1/4.
    """
    want = (0.75 * 0.25 + 0.25 * (1 / 2 + 1 / 3 + 1 / 4)) / math.log(10)
    logits = torch.tensor([[3.0, 1.0, -1.0, -3.0]])
    assert float(aleatoric_uncertainty(logits)) == pytest.approx(want)
    assert float(aleatoric_uncertainty(logits.log_softmax(-1))) == pytest.approx(want, abs=1e-6)
    assert float(aleatoric_uncertainty(torch.tensor([[3.0, 1.0, -1.0, -3.0, -torch.inf]]))) == pytest.approx(want)
    assert 0 <= float(aleatoric_uncertainty(torch.zeros(1, 20))) <= 1  # a uniform row has no evidence


def test_a_vocabulary_of_one_leaves_no_uncertainty() -> None:
    """The only token has probability 1."""
    for score in (uncertainty, margin_uncertainty, aleatoric_uncertainty):
        assert score(torch.tensor([[3.0]])).tolist() == [0.0]


def test_aleatoric_uncertainty_of_little_evidence_in_a_batch() -> None:
    """Logits (.3, .1, -.1, -.3) have the evidence .3 and .1; the second row has (3, 1), and the third has none."""
    small = 0.75 * (digamma(1.4) - digamma(1.3)) + 0.25 * (digamma(1.4) - digamma(1.1))
    large = 0.75 * 0.25 + 0.25 * (1 / 2 + 1 / 3 + 1 / 4)
    logits = torch.tensor([[0.3, 0.1, -0.1, -0.3, -torch.inf], [7.0, 5.0, 3.0, 1.0, -torch.inf], [2.0] * 5])
    want = [small / math.log(10), large / math.log(10), 0.0]
    assert aleatoric_uncertainty(logits).tolist() == pytest.approx(want, abs=1e-6)
