"""Uncertainty by hand."""

from __future__ import annotations

import math

import pytest
import torch

from logitkit.processors.cascade.uncertainty import aleatoric, margin, uncertainty

LAWS = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.0]]).log()


def test_uncertainty() -> None:
    """Uniform over 4: 1 - 1/4. Sure: 0. (.5, .3, .2) has 1.0297 nats."""
    assert uncertainty(LAWS).tolist() == pytest.approx([0.75, 0.0, 1 - math.exp(-1.0296530)])


def test_margin() -> None:
    """A tie is 1, a sure token 0, .5 against .3 is .8."""
    assert margin(LAWS).tolist() == pytest.approx([1.0, 0.0, 0.8])


def test_aleatoric() -> None:
    """Logits (3, 1, -1, -3), mean 0: evidence (3, 1), of 4: 3/4 (1/4) + 1/4 (1/2 + 1/3 + 1/4) nats, over ln 10.

    digamma(5) - digamma(4) = 1/4 and digamma(5) - digamma(2) = 1/2 + 1/3 + 1/4.
    """
    want = (0.75 * 0.25 + 0.25 * (1 / 2 + 1 / 3 + 1 / 4)) / math.log(10)
    logits = torch.tensor([[3.0, 1.0, -1.0, -3.0]])
    assert float(aleatoric(logits)) == pytest.approx(want)
    assert float(aleatoric(logits.log_softmax(-1))) == pytest.approx(want, abs=1e-6)
    assert float(aleatoric(torch.tensor([[3.0, 1.0, -1.0, -3.0, -torch.inf]]))) == pytest.approx(want)
    assert 0 <= float(aleatoric(torch.zeros(1, 20))) <= 1  # no evidence at all
