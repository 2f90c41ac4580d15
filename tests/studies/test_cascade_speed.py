"""The study of the speed of cascades: its table, and the losslessness of the speculative form."""

from __future__ import annotations

import torch

from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies.cascade_speed import cascade_variants, measure, table


def test_every_variant_is_timed() -> None:
    """Every variant is timed, and the speculative text at alpha = 0 equals that of the large model."""
    small, large = tiny_model(), tiny_model(1)
    variants = cascade_variants(small, large, tiny_tokenizer(), "Once", tokens=6, alphas=[0.9], drafts=[2])
    timings, written = measure(small, large, variants, rounds=1)
    assert torch.equal(written["speculative token_v3 0, draft 2"], written["large alone"])
    assert all(len(timing.seconds) == 1 for timing in timings.values())
    assert "| cascade chow 0.9 |" in table(timings, 6)
