"""`fuse` by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from logitkit.processors.ensemble import fuse


def test_fusion_by_hand() -> None:
    """By hand: p = [1/2, 1/2, 0], q = [1/8, 0, 7/8], weights 3:1."""
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.125, 0.0, 0.875]])

    def fused(how: Any, *reachable: Any) -> torch.Tensor:
        return fuse(p, [q], [3.0, 1.0], how, reachable).exp()[0]

    torch.testing.assert_close(fused("arithmetic"), torch.tensor([13.0, 12.0, 7.0]) / 32)
    torch.testing.assert_close(fused("max"), torch.tensor([12.0, 12.0, 7.0]) / 31)
    torch.testing.assert_close(fused("geometric"), torch.tensor([1.0, 0.0, 0.0]))
    first = 0.5**0.75 * 0.125**0.25
    can = torch.tensor([True, False, True])
    torch.testing.assert_close(fused("geometric", can), torch.tensor([first, 0.5, 0.0]) / (first + 0.5))


def test_an_empty_row_is_the_main_models() -> None:
    """The geometric mean of two one-hot rows that differ has no probability; the main row is returned."""
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert fuse(p, [q], [1.0, 1.0], "geometric").exp().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("how", ["arithmetic", "geometric", "max"])
def test_a_helper_of_weight_zero_forbids_nothing(how: Any) -> None:
    """With the weights 1 and 0 the result is the main model's, also where the helper has no probability."""
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(fuse(p, [q], [1.0, 0.0], how).exp(), p)


def test_only_the_empty_row_of_a_batch_is_the_main_models() -> None:
    """The first row has no common token; the second is proportional to (sqrt(3/8), sqrt(1/8)), the third to (1, 0)."""
    p, q = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    got = fuse(p, [q], [1.0, 1.0], "geometric").exp()
    root = 3**0.5
    torch.testing.assert_close(got, torch.tensor([[1.0, 0.0], [root / (root + 1), 1 / (root + 1)], [1.0, 0.0]]))
