"""Hypotheses: verdicts by hand, their own correction, and the mistakes of a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench_runs import tiny_run, write_records, write_rows
from logitkit.bench.config import ChainEntry, HypothesisEntry, Overrides, Run, TaskEntry, from_data
from logitkit.bench.execution import Store, environment
from logitkit.bench.report import Cell, Comparison, Summary, design, holm, markdown, summarise
from logitkit.bench.report.conclusions import conclusions
from logitkit.bench.report.hypotheses import verdict
from logitkit.bench.tasks.task import Metric
from logitkit.errors import RunError

LOSS, SHARE = (Metric(name=name, better=way) for name, way in (("loss", "lower"), ("accuracy", "higher")))  # type: ignore[arg-type]


def cell_of(low: float, high: float, adjusted: float) -> Cell:
    """Return a cell with an interval of the difference and a corrected p-value."""
    sizes: Any = {"samples": 9, "up": 1, "down": 1, "test": "sign flips"}
    found = Comparison(difference=(low + high) / 2, low=low, high=high, p=adjusted, adjusted=adjusted, **sizes)
    return Cell(value=0.5, low=0.4, high=0.6, samples=9, infinite=0, comparison=found, conclusion="")


@pytest.mark.parametrize(
    ("metric", "low", "high", "p", "expect", "smallest", "want"),
    [
        (LOSS, -0.3, -0.1, 0.01, "better", 0.0, "supported"),
        (LOSS, -0.3, -0.1, 0.01, "better", 0.1, "supported"),
        (LOSS, -0.3, -0.1, 0.01, "better", 0.2, "supported, may be smaller than 0.2"),
        (LOSS, -0.3, -0.1, 0.01, "worse", 0.0, "contradicted"),
        (LOSS, -0.3, -0.1, 0.01, "different", 0.2, "supported, may be smaller than 0.2"),
        (LOSS, -0.3, -0.1, 0.06, "better", 0.0, "not shown"),
        (LOSS, -0.3, 0.1, 0.01, "better", 0.0, "not shown"),
        (LOSS, -0.3, 0.1, 0.5, "better", 0.4, "no difference of interest"),
        (LOSS, -0.4, 0.1, 0.5, "better", 0.4, "not shown"),
        (SHARE, 0.1, 0.3, 0.01, "better", 0.0, "supported"),
        (SHARE, 0.1, 0.3, 0.01, "worse", 0.0, "contradicted"),
        (SHARE, -0.3, -0.1, 0.01, "worse", 0.1, "supported"),
        (SHARE, -0.3, -0.1, 0.01, "different", 0.1, "supported"),
    ],
)
def test_the_verdict_by_hand(
    metric: Metric, low: float, high: float, p: float, expect: Any, smallest: float, want: str
) -> None:
    """By the corrected p-value, and by where the interval lies from 0 and the smallest difference of interest."""
    entry = HypothesisEntry(chain="cfg", task="words", expect=expect, smallest=smallest)
    assert verdict(entry, metric, cell_of(low, high, p)) == want
    assert verdict(entry, metric, None) == "not tested"


def a_run(place: Path, tmp_path: Path, **changes: Any) -> Run:
    """Return a run of three chains on 30 texts."""
    write_rows(tmp_path / "many.jsonl", [{"text": f"the ship number {number}"} for number in range(30)])
    chains = {
        name: ChainEntry(chain=chain) for name, chain in (("plain", ""), ("cfg", "cfg(1.5)"), ("top", "top_p(0.9)"))
    }
    tasks = {"words": TaskEntry(task="lambada", data=str(tmp_path / "many.jsonl"))}
    return tiny_run(place, chains=chains, tasks=tasks, resources={}, seeds=[0], **changes)


def reported(run: Run, folder: Path) -> Summary:
    """Register a run, write records in which cfg has a smaller loss and top a larger one, and summarise it."""

    def metrics(chain: str, task: str, number: int) -> dict[str, float]:
        shift = {"plain": 0.0, "cfg": -0.2, "top": 0.05}[chain]
        return {"accuracy": float(number % 2), "loss": 1 + shift * (number % 3), "impossible": 0.0}

    with Store(folder) as store:
        store.begin(run, environment())
        write_records(run, store, metrics)
    return summarise(run, store)


def test_hypotheses_have_their_own_correction_and_the_rest_is_exploratory(bench_place: Path, tmp_path: Path) -> None:
    """Holm over the two hypotheses, not over the six comparisons; other differences that are shown say exploratory."""
    entries = [
        HypothesisEntry(chain="cfg", task="words", metric="loss", smallest=0.1),
        HypothesisEntry(chain="top", against="cfg", task="words", metric="loss", expect="worse"),
    ]
    summary = reported(a_run(bench_place, tmp_path, hypotheses=entries), tmp_path / "out")
    cells = [found.cell for found in summary.findings]
    found = [cell.comparison for cell in cells if cell is not None and cell.comparison is not None]
    assert [each.adjusted for each in found] == pytest.approx(holm([each.p for each in found])) and len(found) == 2
    assert [each.verdict for each in summary.findings] == ["supported", "supported"]
    assert found[1].difference == pytest.approx(0.25)
    first, second, *_ = conclusions(summary)
    assert first.startswith("cfg is better than plain on words") and "exploratory" not in first
    assert second.startswith("top is worse than plain on words") and second.endswith("(exploratory).")
    assert any(
        "2 of 2 hypotheses are pre-registered, and all other comparisons are exploratory." in s for s in design(summary)
    )
    assert "## Hypotheses" in markdown(summary) and summary.as_data()["findings"][0]["verdict"] == "supported"


def test_a_later_hypothesis_is_exploratory(bench_place: Path, tmp_path: Path) -> None:
    """One that is added after the answers is tested, and does not count as registered."""
    entry = HypothesisEntry(chain="cfg", task="words", metric="loss")
    summary = reported(a_run(bench_place, tmp_path), tmp_path / "out")
    assert design(summary)[-2].endswith("It has no hypotheses: all comparisons are exploratory.")
    later = summarise(a_run(bench_place, tmp_path, hypotheses=[entry]), Store(tmp_path / "out"))
    assert [(found.registered, found.verdict) for found in later.findings] == [(False, "supported")]
    assert design(later)[-1] == (
        'Changed since the registration: hypotheses: added, [{"chain": "cfg", "task": "words", "metric": "loss"}].'
    )


def test_mistakes_of_hypotheses_are_reported(bench_place: Path) -> None:
    """Each with the number of the hypothesis, before anything is run."""

    def mistakes(whole: Any = None, **hypothesis: Any) -> str:
        data: dict[str, Any] = {
            "models": ["tiny"],
            "chains": ["", "cfg(1.5)"],
            "tasks": {"arc": {"data": "choices.jsonl"}},
        }
        entry = {"chain": "cfg(1.5)", "task": "arc", **hypothesis}
        data["hypotheses"] = whole or [{"chain": "cfg(1.5)", "task": "arc"}, entry]
        with pytest.raises(RunError) as caught:
            from_data(data, folder=str(bench_place))
        return str(caught.value)

    assert "hypotheses.2.chain: no chain named 'cgf(1.5)'; did you mean 'cfg(1.5)'?" in mistakes(chain="cgf(1.5)")
    assert "hypotheses.2.task: no task named 'ark'" in mistakes(task="ark")
    assert "hypotheses.2.metric: no metric named 'accuracies'; did you mean 'accuracy'?" in mistakes(
        metric="accuracies"
    )
    assert "chain must be another chain than the one it is compared with, got 'plain'" in mistakes(chain="plain")
    assert "smallest must be a finite number >= 0, got -1" in mistakes(smallest=-1)
    assert "expect must be one of 'better', 'worse', 'different', got 'beter'" in mistakes(expect="beter")
    assert "hypotheses.2.expected: no setting named 'expected'; did you mean 'expect'?" in mistakes(expected="better")
    assert "hypotheses: must be a list of mappings, got {'a': 1}" in mistakes({"a": 1})
    assert "hypotheses.1: must be a mapping, got 'better'" in mistakes(["better"])
    assert "hypotheses.2.model: no model named 'large'" in mistakes(model="large")
    twice = "hypotheses.2.chain: each comparison must have one hypothesis, got another in hypothesis 1"
    assert twice in mistakes() and twice in mistakes(expect="worse", metric="accuracy", model="tiny")
    assert twice in mistakes(chain="plain", against="cfg(1.5)") and twice not in mistakes(metric="loss", model="large")


def test_the_tasks_of_a_tuning_are_checked(bench_place: Path) -> None:
    """Before anything is run, because the report reads their items; no hypotheses are an empty list."""
    tuned = {"run": "x", "tasks": {"a": {"task": "nope"}}, "settings": {}, "comparisons": 3}
    data = {"models": ["tiny"], "chains": [""], "tasks": {"arc": {"data": "choices.jsonl"}}, "hypotheses": None}
    with pytest.raises(RunError) as caught:
        from_data({**data, "tuned": tuned}, folder=str(bench_place))
    assert caught.value.mistakes[0].startswith("tuned.tasks.a: no task named 'nope'")
    assert from_data(data, folder=str(bench_place)).hypotheses == []


def test_a_part_of_a_run_keeps_the_hypotheses_about_it() -> None:
    """Options that leave out a chain leave out what is expected of it; the setting of a sweep keeps its strategy."""
    data: dict[str, Any] = {
        "models": {"tiny": {}},
        "chains": {"plain": {}, "cfg s=1": {"strategy": "cfg"}, "top": {}},
        "tasks": {"words": {"task": "lambada"}},
        "hypotheses": [{"chain": "cfg", "task": "words"}, {"chain": "top", "task": "words"}],
    }
    Overrides(chosen={"chains": ["cfg"]}).apply(data)
    assert data["hypotheses"] == [{"chain": "cfg", "task": "words"}]
