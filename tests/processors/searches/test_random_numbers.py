"""Draws by inversion: against one cumulated sum in double precision, at the ends of the range, and row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from logitkit.processors.searches.random_numbers import BLOCK, draw

LAST = 1 - 2**-53  # the largest number below 1


def slow(logp: Tensor, number: float) -> int:
    """Return the first token at which the sum of probabilities exceeds the number."""
    p = logp.double().softmax(-1)
    total = 0.0
    for token, each in enumerate(p.tolist()):
        total += each
        if total > number:
            return token
    return int(p.nonzero()[-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3 * BLOCK), st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0.1, 9))
def test_a_draw_inverts_the_distribution(width: int, seed: int, number: float, spread: float) -> None:
    """The token of one cumulated sum, but where the number is at the border of two tokens."""
    logp = torch.randn(width, generator=torch.Generator().manual_seed(seed)) * spread
    logp[torch.rand(width, generator=torch.Generator().manual_seed(seed + 1)) < 0.3] = -torch.inf
    logp[seed % width] = 0.0
    got = int(draw(logp[None], torch.tensor([number]).double()))
    assert got in {slow(logp, value) for value in (number - 1e-6, number, number + 1e-6)}
    assert logp[got] > -torch.inf


@pytest.mark.parametrize("width", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK])
def test_the_ends_of_the_range(width: int) -> None:
    """The first and the last token with probability, also where blocks without any lie before and behind them."""
    logp = torch.full((2, width), -torch.inf)
    logp[:, width // 3 : width // 2 + 1] = torch.randn(2, width // 2 + 1 - width // 3)
    numbers = torch.tensor([0.0, LAST]).double()
    assert draw(logp, numbers).tolist() == [width // 3, width // 2]


def test_scores_of_any_size_and_dtype() -> None:
    """Logits far from 0, and double or half precision: only differences count."""
    logp = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    for shift in (0.0, 900.0, -900.0):
        for dtype in (torch.float32, torch.float64, torch.float16):
            tokens = [int(draw((logp + shift).to(dtype), torch.tensor([u]).double())) for u in (0.05, 0.2, 0.5, LAST)]
            assert tokens == [0, 1, 2, 2], (shift, dtype)


def test_a_row_does_not_depend_on_other_rows() -> None:
    logp, numbers = torch.randn(9, 700) * 4, torch.rand(9).double()
    every = draw(logp, numbers)
    assert [int(draw(logp[row : row + 1], numbers[row : row + 1])) for row in range(9)] == every.tolist()
