"""The contract of hard constraints."""

from __future__ import annotations

import torch

from logitkit.processors.engine import AllowedTokens, Constraint


def test_a_fixed_set_of_tokens() -> None:
    """Every row gets a mask of the width of the scores that is true at the allowed tokens only."""
    constraint = AllowedTokens([3, 1, 3], vocab=5)
    assert isinstance(constraint, Constraint)
    got = constraint.allowed(torch.tensor([[0, 4], [1, 2]]))
    assert got.dtype == torch.bool and got.tolist() == [[False, True, False, True, False]] * 2


def test_any_class_with_the_method_is_a_constraint() -> None:
    """The protocol is structural, so a plugin need not inherit from it."""

    class NoRepeat:
        """A token may not follow itself."""

        def allowed(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.arange(4) != rows[:, -1:]

    constraint: Constraint = NoRepeat()
    assert constraint.allowed(torch.tensor([[0, 2]])).tolist() == [[True, True, False, True]]
    assert not isinstance(object(), Constraint)
