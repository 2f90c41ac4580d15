"""The study of static caches runs on a tiny model, and its table pairs the rounds."""

from __future__ import annotations

import time

from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import gpu_speed
from studies.gpu_speed import Measured


def test_every_way_runs_and_second_streams_are_fused() -> None:
    """With a static cache that is not compiled; nothing is compiled after the first run of anything."""
    settings = gpu_speed.settings_of("cpu", 2, static=True)
    del settings["compile_config"]
    model = tiny_model()
    measured = gpu_speed.measure(gpu_speed.runs_of(model, tiny_tokenizer(), 2, settings), time.perf_counter, 1)
    assert {name: one.streams for name, one in measured.items() if one.streams} == {
        "cfg(1.5)": "fused",
        "uscd, every step": "fused",
    }
    assert all(len(one.seconds) == 1 and one.graphs == 0 for one in measured.values())


def test_worked_example() -> None:
    """By hand: median ratios of 1 and of 0.8, which is the floor of a fused stream; memory is a ratio."""
    plain = Measured([1.0, 1.0, 1.0], 9.0, 100, 0, "")
    slower = Measured([2.0, 1.0, 1.0], 9.5, 180, 1, "fused")
    twice = Measured([1.0, 1.25, 5.0], 9.0, 200, 0, "")
    text = gpu_speed.table({gpu_speed.PLAIN: plain, gpu_speed.TWICE: twice, "cfg": slower}, "batch 1", 20)
    assert text.endswith("| cfg | 1.000 | 0.800 | 20.0 | 9.5 | 1 | 1.80 | fused |")
    guided = gpu_speed.table({gpu_speed.PLAIN: plain, gpu_speed.GUIDANCE: twice}, "batch 1", 20)
    assert guided.endswith("| 0.800 | 0.500 | 16.0 | 9.0 | 0 | 2.00 |  |")
