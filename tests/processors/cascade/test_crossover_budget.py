"""Budgets of a crossover."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitkit.processors.cascade import budget_left, switches_within_budget


def test_budgets_by_hand() -> None:
    """A count limits all switches; a share of 1/2 permits a switch at position t after fewer than (t + 1) / 2."""
    requested = torch.tensor([[True, True, False, True, True, True]])
    assert switches_within_budget(requested, 2).tolist() == [[True, True, False, False, False, False]]
    assert switches_within_budget(requested, 0.5).tolist() == [[True, False, False, True, True, False]]
    assert not switches_within_budget(requested, 0).any() and not switches_within_budget(requested, 0.0).any()
    for unlimited in (None, 1.0):
        assert torch.equal(switches_within_budget(requested, unlimited), requested)


@given(
    requested=st.lists(st.booleans(), max_size=40),
    budget=st.one_of(st.integers(0, 10), st.floats(0, 1)),
)
def test_a_budget_is_never_exceeded(requested: list[bool], budget: float) -> None:
    """After n positions at most ``budget`` positions switched, or the share of n rounded up."""
    rows = torch.tensor([requested], dtype=torch.bool).reshape(1, -1)
    switched = switches_within_budget(rows, budget)[0].long().cumsum(0)
    for position, used in enumerate(switched.tolist()):
        assert used <= (budget if isinstance(budget, int) else budget * (position + 1) + 1)


@pytest.mark.parametrize(
    ("budget", "want"),
    [(None, [True, True, True]), (1, [True, False, False]), (0.5, [True, True, False]), (0.0, [False, False, False])],
)
def test_budget_left_by_hand(budget: float | None, want: list[bool]) -> None:
    """Rows with 0, 1 and 2 switches before position 3 have a budget left where the rule says so."""
    assert budget_left(torch.tensor([0, 1, 2]), 3, budget).tolist() == want
