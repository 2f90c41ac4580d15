"""Products with few rows give the same numbers in either order, and the mode ends with the forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear
from torch.overrides import _get_current_function_mode_stack
from transformers import LogitsProcessor

from fusing import bound, decode, hooks
from logitkit.processors.engine import thin_matmul as thin
from logitkit.registry.laws import tiny_model


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=2), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_equals_linear(lead: list[int], inputs: int, outputs: int, with_bias: bool) -> None:
    """For any shape, with and without a bias; the result is contiguous, as the layers of models expect."""
    rows, weight, bias = torch.randn(*lead, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    got = thin.weight_times_rows(rows, weight, bias if with_bias else None)
    torch.testing.assert_close(got, linear(rows, weight, bias if with_bias else None))
    assert got.is_contiguous()


@pytest.mark.parametrize(
    ("rows", "dtype", "count"), [(2, "float32", 1), (1, "float32", 0), (9, "float32", 0), (2, "float64", 0)]
)
def test_only_few_fp32_rows_are_swapped(monkeypatch: pytest.MonkeyPatch, rows: int, dtype: str, count: int) -> None:
    """Single rows, many rows and other dtypes use the order of torch."""
    calls, swapped = [], thin.weight_times_rows
    monkeypatch.setattr(thin, "weight_times_rows", lambda *given: (calls.append(1), swapped(*given))[1])
    layer = torch.nn.Linear(4, 3, dtype=getattr(torch, dtype))
    with thin.ThinMatmul():
        layer(torch.ones(rows, 4, dtype=getattr(torch, dtype)))
    assert len(calls) == count


def test_a_fused_run_with_thin_products_gives_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens equal those of a lazy run, and the mode is inactive between forwards and after the run."""
    want = decode(bound("cfg(2.0)"), "lazy")
    monkeypatch.setattr(thin, "is_faster", lambda model, rows: True)
    entered = []

    class Watch(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            entered.append(len(_get_current_function_mode_stack()))
            return scores

    assert torch.equal(decode(bound("cfg(2.0)"), "fused", logits_processor=[Watch()]), want)
    assert set(entered) == {0} and not _get_current_function_mode_stack()


def test_a_failing_forward_ends_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the third forward leaves no active mode and no hook."""
    monkeypatch.setattr(thin, "is_faster", lambda model, rows: True)
    model, seen = tiny_model(9), []
    before = hooks(model)

    def fails(*_: Any) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise RuntimeError("stop")

    call = bound("cfg(2.0)", model)  # binding checks the model's cache with forwards of its own
    hook = model.model.register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="stop"):
        decode(call, "fused")
    hook.remove()
    assert not _get_current_function_mode_stack() and hooks(model) <= before


def test_orders_are_timed_once_for_each_model() -> None:
    """Models without a large weight are not timed, and one row or many rows never use the second order."""
    assert not thin.is_faster(tiny_model(), 2) and not thin.is_faster(tiny_model(), 1)
    large = torch.nn.Sequential(torch.nn.Linear(600, 600))
    assert thin.is_faster(large, 2) == thin.is_faster(large, 2) and not thin.is_faster(large, 50)
