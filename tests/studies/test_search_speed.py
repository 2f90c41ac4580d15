"""The study of the throughput of searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import search_speed


def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every method has a row for each number of particles, and the file holds what is printed."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))
    monkeypatch.setattr(search_speed.torch, "set_num_threads", lambda count: None)
    search_speed.main(model="tiny", rows=[2, 3], tokens=4, rounds=1, out=tmp_path / "speed.md")
    printed = capsys.readouterr().out
    assert (tmp_path / "speed.md").read_text() in printed
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith(("| 2", "| 3"))]
    assert [row[1] for row in rows[:5]] == ["plain", *search_speed.SEARCHES]
    assert [row[1] for row in rows[10:13]] == ["lazy", "fused", "auto"] and rows[0][3] == "1.00"


def test_the_ratio_is_that_of_paired_rounds() -> None:
    """By hand: 1 / 2 and 3 / 4 and 2 / 1 s have the median .75; forwards of half the time allow twice as much."""
    steps = {
        name: [search_speed.Step(seconds, seconds / 2) for seconds in times]
        for name, times in {"one": [2.0, 4.0, 1.0], "plain": [1.0, 3.0, 2.0]}.items()
    }
    assert search_speed.ratio(steps, "one", "plain") == (0.75, 1.5)
