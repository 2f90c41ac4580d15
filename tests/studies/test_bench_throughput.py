"""The study of the benchmark's throughput: its ratios, and its runs on a tiny model."""

from __future__ import annotations

from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies.bench_throughput import generation, scoring, seconds, speed


def test_the_ratio_is_taken_round_by_round() -> None:
    """A machine that slows down does not change the median."""
    assert speed({"a": [1.0, 10.0], "b": [2.0, 20.0]}, "a", "b") == 2.0


def test_every_run_of_the_study() -> None:
    """Scoring in batches of 1, 8 and 32 beside plain forwards; greedy and sampled texts beside plain generate."""
    runs = scoring(tiny_model(), tiny_tokenizer())
    assert list(runs) == ["plain forwards one by one", "scored, batch 1", "scored, batch 8", "scored, batch 32"]
    runs = generation(tiny_model(), tiny_tokenizer(), batch=2, tokens=2)
    times = seconds(runs, rounds=1)
    assert len(times) == 4 and all(spent[0] > 0 for spent in times.values())
