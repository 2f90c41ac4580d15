"""Positions and masks that are computed ahead equal those computed at each step."""

from __future__ import annotations

import torch

from logitkit.processors.engine.positions_ahead import STEPS, PositionsAhead

LENGTHS, MASK = torch.tensor([3, 1, 2]), torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]])


def test_every_step_equals_its_definition() -> None:
    """For one token and for chunks, within what was computed ahead and beyond, also after the rows changed."""
    ahead = PositionsAhead(LENGTHS, MASK)
    for rows in (torch.tensor([2, 0]), torch.tensor([1, 1, 0])):
        for start, count in ((0, 1), (1, 1), (5, 4), (STEPS + 3, 2), (2 * STEPS + 9, 1), (2, 1)):
            want = LENGTHS[rows][:, None] + torch.arange(start, start + count)
            got = ahead.positions(rows, start, count)
            assert torch.equal(got, want) and got.is_contiguous()
            tail = torch.ones(len(rows), start + count, dtype=torch.long)
            assert torch.equal(ahead.masks(rows, start + count), torch.cat([MASK[rows], tail], dim=1))
