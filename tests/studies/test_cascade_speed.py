"""The speed table of cascades is filled, and every speculative text at alpha = 0 is the large model's own."""

from __future__ import annotations

import torch

from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies.cascade_speed import measure, table, ways


def test_every_way_is_timed_and_right() -> None:
    """On tiny models; no figure is looked at."""
    small, large = tiny_model(), tiny_model(1)
    todo = ways(small, large, tiny_tokenizer(), "Once", tokens=6, alphas=[0.9], drafts=[2])
    timings, written = measure(small, large, todo, rounds=1)
    assert torch.equal(written["speculative token_v3 0, draft 2"], written["large alone"])
    assert all(len(timing.seconds) == 1 for timing in timings.values())
    assert "| cascade chow 0.9 |" in table(timings, 6)
