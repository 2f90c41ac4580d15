"""Registration: the run file is copied before the first answer, and every later change is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench_runs import tiny_run, write_records
from command_line import logitkit_command
from logitkit.bench.config import ChainEntry, HypothesisEntry, Run, TaskEntry, from_data
from logitkit.bench.execution import Store, environment
from logitkit.bench.execution.registration import registration
from logitkit.errors import FileFormatError

WORDS = TaskEntry(task="lambada", data="words.jsonl")
HYPOTHESIS = HypothesisEntry(chain="cfg", task="words")


def a_run(place: Path, **changes: Any) -> Run:
    """Return a run of two chains with one hypothesis, with some fields replaced."""
    chains = {"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)")}
    parts = {"chains": chains, "tasks": {"words": WORDS}, "resources": {}, "seeds": [0], "hypotheses": [HYPOTHESIS]}
    return tiny_run(place, **{**parts, **changes})


def begun(run: Run, folder: Path, source: Path | None = None) -> None:
    """Begin a run in a folder of results, and write its records."""
    with Store(folder) as store:
        store.begin(run, environment(), source)
        write_records(run, store, lambda *_: {"accuracy": 0.0, "loss": 1.0, "impossible": 0.0})


def test_the_file_is_copied_as_it_is_and_only_once(bench_place: Path, tmp_path: Path) -> None:
    """With its hash, before the first answer; a second session and another run leave it alone."""
    source = tmp_path / "run.yaml"
    source.write_bytes(b"# a comment\r\nmodels: [tiny]\n")
    run = a_run(bench_place)
    begun(run, tmp_path / "out", source)
    found = registration(tmp_path / "out", run)
    assert found is not None and found.in_time and found.changes == [] and found.holds(HYPOTHESIS, run)
    assert (tmp_path / "out" / "registered.yaml").read_bytes() == source.read_bytes()
    assert found.digest == hashlib.sha256(source.read_bytes()).hexdigest()
    source.write_text("models: [other]\n")
    begun(a_run(bench_place, seeds=[1]), tmp_path / "out", source)
    assert registration(tmp_path / "out", run) == found


def test_a_run_of_options_is_written_as_a_run_file(bench_place: Path, tmp_path: Path) -> None:
    """A run without a file is registered as one, and reading that file gives the same run."""
    run = a_run(bench_place)
    begun(run, tmp_path)
    again = from_data(yaml.safe_load((tmp_path / "registered.yaml").read_text()), folder=str(bench_place))
    assert again.hash == run.hash


@pytest.mark.parametrize(
    ("changes", "want", "holds"),
    [
        ({}, [], True),
        ({"seeds": [0, 1]}, ["seeds: added, [0, 1]"], False),
        ({"tasks": {"words": WORDS.model_copy(update={"samples": 3})}}, ["tasks.words.samples: added, 3"], False),
        (
            {"tasks": {"words": WORDS, "more": WORDS}},
            ['tasks.more: added, {"task": "lambada", "data": "words.jsonl"}'],
            True,
        ),
        (
            {"chains": {"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(2.0)")}},
            ['chains.cfg.chain: "cfg(1.5)", now "cfg(2.0)"'],
            False,
        ),
        ({"hypotheses": []}, ["hypotheses: removed"], True),
        ({"baseline": "plain"}, ['baseline: added, "plain"'], True),
        ({"baseline": "cfg"}, ['baseline: added, "cfg"'], False),
        (
            {"hypotheses": [HYPOTHESIS, HypothesisEntry(chain="cfg", task="words", metric="loss")]},
            ['hypotheses.2: added, {"chain": "cfg", "task": "words", "metric": "loss"}'],
            True,
        ),
    ],
)
def test_changes_are_named(
    changes: dict[str, Any], want: list[str], holds: bool, bench_place: Path, tmp_path: Path
) -> None:
    """Each with its place; a hypothesis is pre-registered as long as what it names is unchanged."""
    begun(a_run(bench_place), tmp_path)
    run = a_run(bench_place, **changes)
    found = registration(tmp_path, run)
    assert found is not None and found.changes == want and found.holds(HYPOTHESIS, run) == holds
    later = HypothesisEntry(chain="cfg", task="words", metric="loss")
    assert not found.holds(later, run)


def test_answers_before_the_registration_make_all_exploratory(bench_place: Path, tmp_path: Path) -> None:
    """As in a folder of an earlier version."""
    run = a_run(bench_place)
    begun(run, tmp_path)
    for name in ("registered.yaml", "registered.json"):
        (tmp_path / name).unlink()
    assert registration(tmp_path, run) is None
    begun(run, tmp_path)
    found = registration(tmp_path, run)
    assert found is not None and found.records == 8 and not found.in_time and not found.holds(HYPOTHESIS, run)


def test_a_changed_copy_is_found_and_a_damaged_one_refused(bench_place: Path, tmp_path: Path) -> None:
    """The copy is compared with its hash; facts that are no facts are one error."""
    run = a_run(bench_place)
    begun(run, tmp_path)
    (tmp_path / "registered.yaml").write_text("chains: {}\n")
    found = registration(tmp_path, run)
    assert found is not None and found.changes == ["registered.yaml: not the file that was registered"]
    for damaged in ("", "[]", "{}", json.dumps({"time": "", "sha256": "", "records": "many", "run": {}})):
        (tmp_path / "registered.json").write_text(damaged)
        with pytest.raises(FileFormatError, match="must be a registration of logitkit bench"):
            registration(tmp_path, run)


def test_the_command_registers_the_file(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte; a run that options change is registered in its own folder as data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGITKIT_DATA", str(bench_place))
    text = f"# hypotheses first\nmodels: {{tiny: {bench_place / 'tiny'}}}\nchains: ['', cfg(1.5)]\n"
    text += "tasks: {lambada: {data: words.jsonl, samples: 2}}\nhypotheses: [{chain: cfg(1.5), task: lambada}]\n"
    (tmp_path / "run.yaml").write_text(text)
    assert logitkit_command("bench", "run.yaml").exit_code == 0
    assert (tmp_path / "bench-results" / "run" / "registered.yaml").read_text() == text
    report = (tmp_path / "bench-results" / "run" / "report.md").read_text()
    assert "1 of 1 hypothesis is pre-registered" in report and "Nothing changed since the registration." in report
    assert "| cfg(1.5) better than plain on lambada, tiny: accuracy ↑ | pre-registered |" in report
    (tmp_path / "run.yaml").write_text(text.replace("samples: 2", "samples: 3"))
    assert logitkit_command("bench", "report", "run.yaml").exit_code == 0
    report = (tmp_path / "bench-results" / "run" / "report.md").read_text()
    assert "Changed since the registration: tasks.lambada.samples: 2, now 3." in report
    assert "| exploratory |" in report and "0 of 1 hypothesis are pre-registered" in report
