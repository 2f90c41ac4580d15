"""`fuse` by hand."""

from __future__ import annotations

from typing import Any

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
