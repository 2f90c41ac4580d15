"""A memo returns its result only while the result is valid."""

from __future__ import annotations

import torch

from logitkit.processors.engine.memo import Memo


def test_a_result_belongs_to_tensor_objects() -> None:
    """A tensor with equal contents has no kept result."""
    memo: Memo[str] = Memo()
    a, b = torch.zeros(2), torch.zeros(2)
    assert memo.get(a) is None
    assert memo.put("yes", a, b) == "yes" and memo.get(a, b) == "yes"
    assert memo.get(b, a) is None and memo.get(a) is None and memo.get(a, b.clone()) is None


def test_writing_to_a_tensor_drops_its_result() -> None:
    """A write to the tensor, directly or through a view, drops the result."""
    memo: Memo[int] = Memo()
    a = torch.zeros(2, 2)
    memo.put(1, a)
    a[0] += 1
    assert memo.get(a) is None


def test_results_for_inference_tensors_are_not_kept() -> None:
    """torch does not count writes to inference tensors, so a kept result could be wrong."""
    memo: Memo[int] = Memo()
    with torch.inference_mode():
        a = torch.zeros(2)
    assert memo.put(1, a) == 1 and memo.get(a) is None


def test_clear() -> None:
    """`clear` drops the result."""
    memo: Memo[int] = Memo()
    a = torch.zeros(2)
    memo.put(1, a)
    memo.clear()
    assert memo.get(a) is None
