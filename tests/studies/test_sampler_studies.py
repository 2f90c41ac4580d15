"""The studies of samplers: speed relative to top_p, and the comparison with equal budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logitkit import models
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import sampler_referee, sampler_speed
from studies.sampler_referee import SETTINGS, Answers, Judged, chosen, report


def test_every_sampler_is_timed() -> None:
    """A ratio in each column for the copy and every sampler, and the milliseconds of dry below."""
    table = sampler_speed.table(1, vocabularies=[2100], batches=[1, 2])
    lines = table.split("\n")
    assert lines[0] == "| | V = 2,100, batch 1 | V = 2,100, batch 2 |" and len(lines) == 3 + 12 + 2
    assert all(line.count("|") == 4 for line in lines[3:15]) and "`dry` at 8,000 tokens, V = 2,100" in lines[-1]


def test_every_sampler_has_four_valid_settings() -> None:
    """Budgets are equal."""
    assert {len(settings) for settings in SETTINGS.values()} == {4}
    for setting in (setting for settings in SETTINGS.values() for setting in settings):
        assert str(Chain(f"temperature(1.5) | {setting}"))


def test_the_best_setting_among_the_diverse_ones_is_chosen() -> None:
    """By hand: b is better than c, a is best but always the same; if none is diverse, the most diverse one."""
    means = {"a": (0.9, 0.1), "b": (0.5, 0.6), "c": (0.4, 0.9)}
    answers: Answers = {
        (name, n): Judged(right=right, distinct=d) for name, (right, d) in means.items() for n in (1, 2)
    }
    assert chosen(["a", "b", "c"], [1, 2], answers, 0.5) == "b"
    assert chosen(["a", "b"], [1, 2], answers, 0.7) == "b"
    assert chosen(["a", "b", "c"], [1, 2], answers, 0.0) == "a"


def test_differences_are_paired_over_held_out_questions() -> None:
    """By hand: one of two questions gains 100 points; development questions are in the first column alone."""
    right = {("x", 0): 1.0, ("x", 1): 1.0, ("x", 2): 0.0, ("y", 0): 0.0, ("y", 1): 0.0, ("y", 2): 0.0}
    names = {"x": "min_p(0.1) | xtc()", "y": "y"}
    answers = {(names[name], n): Judged(right=value, distinct=0.5) for (name, n), value in right.items()}
    table = report({"top_p": names["y"], "xtc": names["x"]}, [0], [1, 2], answers)
    assert "| `y` | 0.0 | 0.0 [0.0, 0.0] | +0.0 [+0.0, +0.0] | 0.50 |" in table
    assert r"| `min_p(0.1) \| xtc()` | 100.0 | 50.0 [" in table and "| +50.0 [" in table


def test_the_command_tunes_and_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two settings for two samplers over four questions; a second run generates nothing."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))
    rows = [{"question": f"q{n}", "golden_answers": ["a"]} for n in range(4)]
    (tmp_path / "triviaqa_subsample.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = {"data": tmp_path, "items": 4, "repeats": 2, "budget": 2, "only": ["p_less"], "out": tmp_path / "out"}
    fixed = {"model": "tiny", "temperature": 1.0, "floor": 0.5, "batch": 2}
    sampler_referee.main(**options, **fixed)  # type: ignore[arg-type]
    first = capsys.readouterr().out
    written = (tmp_path / "out").read_text()
    assert first.count("\n") == 4 and written.count("\n") == 2 * 2 * 2 + 2 * 2
    monkeypatch.setattr(sampler_referee, "sample", lambda *arguments: pytest.fail("generated again"))
    sampler_referee.main(**options, **fixed)  # type: ignore[arg-type]
    assert capsys.readouterr().out == first
