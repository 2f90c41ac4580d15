"""The study of bytes on a GPU runs on a tiny model, whose bigrams are those of its texts."""

from __future__ import annotations

import time

import torch

from logitkit.bench.speed.random_models import ModelSizes, random_model
from logitkit.models.placement import placement
from logitkit.processors.byte_level import ByteModel
from studies import gpu_bytes

TEXTS = ["the cat sat on the mat, and the dog sat on the cat. " * 20]


def test_both_ways_run() -> None:
    """A tiny model with bigrams: the likeliest token after a token is one that follows it in the texts."""
    tokenizer = gpu_bytes.trained_tokenizer(TEXTS)
    model = random_model(ModelSizes(16, 32, 1, 2, 1), tokenizer, placement("test", "cpu", "float32"))
    gpu_bytes.add_bigrams(model, tokenizer, TEXTS, len(tokenizer))
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = model(input_ids=ids).logits.argmax(-1)
    pairs = set(zip(ids[0].tolist(), ids[0, 1:].tolist(), strict=False))
    assert set(zip(ids[0, :-1].tolist(), best[0, :-1].tolist(), strict=True)) <= pairs
    over_bytes, text = ByteModel(model, tokenizer, tolerance=1e-3), (TEXTS[0] * 40).encode()
    for run, count in (
        (gpu_bytes.along(over_bytes, text, 20, 6), 6),
        (gpu_bytes.sampled(over_bytes, text, 20, 4, 2), 8),
    ):
        one = gpu_bytes.measure(over_bytes, run, time.perf_counter)
        assert one.written == count and one.forwards > 0 and 0 < one.growing < one.seconds


def test_worked_example() -> None:
    """20 bytes in 2 seconds, of which 5 forwards take 1: 10 bytes/s, 200 ms a forward, 50 ms a byte outside."""
    measured = gpu_bytes.Measured(seconds=2.0, growing=1.0, written=20, forwards=5, first=3.0)
    assert gpu_bytes.table_row("x", measured) == ["x", "10.0", "0.250", "200.00", "50.00", "3.0"]
