"""Remembered answers are forgotten when they could be wrong."""

from __future__ import annotations

import torch

from logitkit.processors.engine.memo import Memo


def test_recalled_for_the_same_tensors_only() -> None:
    """Equal tensors are other tensors."""
    memo: Memo[str] = Memo()
    a, b = torch.zeros(2), torch.zeros(2)
    assert memo.get(a) is None
    assert memo.put("yes", a, b) == "yes" and memo.get(a, b) == "yes"
    assert memo.get(b, a) is None and memo.get(a) is None and memo.get(a, b.clone()) is None


def test_forgotten_when_written_to() -> None:
    """Through a view too."""
    memo: Memo[int] = Memo()
    a = torch.zeros(2, 2)
    memo.put(1, a)
    a[0] += 1
    assert memo.get(a) is None


def test_inference_tensors_are_not_remembered() -> None:
    """Writing to them leaves no mark."""
    memo: Memo[int] = Memo()
    with torch.inference_mode():
        a = torch.zeros(2)
    assert memo.put(1, a) == 1 and memo.get(a) is None


def test_clear() -> None:
    """On request."""
    memo: Memo[int] = Memo()
    a = torch.zeros(2)
    memo.put(1, a)
    memo.clear()
    assert memo.get(a) is None
