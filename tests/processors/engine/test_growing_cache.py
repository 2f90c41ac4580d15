"""A growing layer holds what concatenation would hold."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from logitkit.processors.engine.growing_cache import SMALLEST, GrowingLayer

STEPS = st.lists(st.tuples(st.sampled_from(["add", "crop", "select", "infer"]), st.integers(1, 90)), max_size=8)


@given(steps=STEPS, heads=st.integers(1, 2))
def test_equals_concatenation(steps: list[tuple[str, int]], heads: int) -> None:
    """After appending, dropping the last states and selecting states in any order, also across inference mode."""
    layer, want = GrowingLayer(), torch.zeros(1, heads, 0, 2)
    for number, (step, count) in enumerate(steps):
        if step in ("add", "infer"):
            new = torch.full((1, heads, count, 2), float(number)) + torch.arange(count)[:, None]
            with torch.inference_mode(step == "infer"):
                keys, values = layer.update(new, -new)
            want = torch.cat([want, new], dim=-2)
            assert torch.equal(keys, want) and torch.equal(values, -want)
        elif step == "crop" and want.shape[-2] > count:
            layer.crop(-count)
            want = want[..., :-count, :]
        elif step == "select" and want.shape[-2]:
            index = torch.arange(want.shape[-2] - 1, -1, -2)
            layer.keys, layer.values = layer.keys[:, :, index], layer.values[:, :, index]
            want = want[:, :, index]
        assert layer.get_seq_length() == want.shape[-2]


def test_a_new_state_copies_nothing() -> None:
    """By hand: with room for `SMALLEST` states, the second state lies behind the first in the same memory."""
    layer = GrowingLayer()
    first, _ = layer.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    second, _ = layer.update(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert SMALLEST > 1 and first.data_ptr() == second.data_ptr() and second.flatten().tolist() == [0, 0, 1, 1]
