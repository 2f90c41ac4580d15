"""``logitkit bench power``: from the options, and from the results of a pilot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bench_runs import write_records
from command_line import logitkit_command
from logitkit.bench.config import read
from logitkit.bench.execution import Store
from logitkit.bench.report import Spread
from logitkit.cli.bench_power import Case, _tests

ROWS = 20


@pytest.fixture
def pilot(bench_place: Path, tmp_path: Path) -> Path:
    """The run file of a finished pilot: 4 of 20 items differ, and losses differ by 0 and 0.5 in turn."""
    (tmp_path / "words.jsonl").write_text("".join(f'{{"text": "the ship {n}"}}\n' for n in range(ROWS)))
    data = {
        "models": {"tiny": {"name": str(bench_place / "tiny")}},
        "chains": {"plain": "", "cfg": "cfg(1.5)", "same": "cfg(1.0)"},
        "tasks": {"words": {"task": "lambada", "data": "words.jsonl"}},
    }
    file = tmp_path / "pilot.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))

    def metrics(chain: str, task: str, number: int) -> dict[str, float]:
        changed = chain == "cfg"
        return {
            "accuracy": float(changed and number < 4),
            "loss": 0.5 + 0.5 * (changed and number % 2),
            "impossible": 0.0,
        }

    run = read(file)
    with Store(tmp_path / "bench-results" / "pilot") as store:
        write_records(run, store, metrics)
    return file


def test_options_give_two_tables() -> None:
    """One row for each difference and each number of items, and a sentence on the test and the correction."""
    result = logitkit_command("bench", "power", "--discordant", "0.2", "--difference", "0.05", "--items", "200")
    assert result.exit_code == 0 and "20 % of items differ  0.05        658        867" in result.stdout
    assert "20 % of items differ  200    0.0912     0.104" in result.stdout
    assert "McNemar's exact test, two-sided at 0.05, corrected for 1 comparison." in result.stdout


def test_two_accuracies_give_two_extremes() -> None:
    """Answers that differ as little as possible, and independent answers; the difference is that of the two."""
    result = logitkit_command("bench", "power", "--accuracy", "0.6", "--other", "0.65", "--json")
    first, second = json.loads(result.stdout)["cases"]
    assert first["discordant"] == pytest.approx(0.05) and second["discordant"] == pytest.approx(0.47)
    assert {row["difference"] for row in first["items_needed"]} == {0.05}
    assert first["items_needed"][0]["items"] < second["items_needed"][0]["items"]


def test_a_pilot_gives_its_spread_and_a_cautious_one(pilot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies give the share of items that differ; losses give a standard deviation; equal answers are named."""
    monkeypatch.chdir(pilot.parent)
    settings = ["bench", "power", "pilot.yaml", "--difference", "0.1", "--items", "50", "--power", "0.8", "--json"]
    cfg, cautious, same, _ = json.loads(logitkit_command(*settings, "--comparisons", "3").stdout)["cases"]
    assert cfg["discordant"] == 0.2 and "pilot of 20 items" in cfg["name"] and cautious["discordant"] > 0.2
    want = Spread(discordant=0.2).items_needed(0.1, power=0.8, comparisons=3)
    assert cfg["items_needed"] == [{"difference": 0.1, "power": 0.8, "items": want}]
    assert same["name"].startswith("same, words, tiny: accuracy")
    assert same["discordant"] == pytest.approx(0.161, abs=1e-3)  # no item differs: the bound alone is known
    result = logitkit_command(*settings, "--metric", "loss")
    cfg, _ = json.loads(result.stdout)["cases"]
    assert cfg["deviation"] == pytest.approx((20 / 19) ** 0.5 / 4) and cfg["discordant"] is None
    assert "same, words, tiny: loss: left out, the pilot must be two items or more" in " ".join(result.stderr.split())


def test_the_correction_is_that_of_the_report(pilot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two strategies on three metrics are six comparisons; a file with one hypothesis corrects for one."""
    monkeypatch.chdir(pilot.parent)
    settings = ["bench", "power", "pilot.yaml", "--chain", "cfg", "--items", "50", "--json"]
    assert json.loads(logitkit_command(*settings).stdout)["comparisons"] == 6
    pilot.write_text(pilot.read_text() + "hypotheses: [{chain: cfg, task: words}]\n")
    assert json.loads(logitkit_command(*settings).stdout)["comparisons"] == 1
    assert json.loads(logitkit_command(*settings, "--comparisons", "2").stdout)["comparisons"] == 2


def test_a_difference_that_a_pilot_excludes_has_no_number(pilot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 20 % of the items differ, a difference of 0.5 has a dash, and the other rows their numbers."""
    monkeypatch.chdir(pilot.parent)
    result = logitkit_command("bench", "power", "pilot.yaml", "--chain", "cfg", "--difference", "0.5")
    assert result.exit_code == 0 and "0.5         -          -" in result.stdout
    assert "-: no number of items up to 10,000,000 shows it with this power.\n" in result.stdout
    assert "-: no difference is shown" not in result.stdout  # the second table has no dash


def test_a_dash_is_explained_under_its_table() -> None:
    """One item shows no difference, and no number of items shows a tiny one."""
    arguments = ["bench", "power", "--deviation", "1", "--difference", "1e-9", "--items", "1"]
    lines = logitkit_command(*arguments).stdout.splitlines()
    assert lines.count("-: no number of items up to 10,000,000 shows it with this power.") == 1
    assert lines.count("-: no difference is shown with this power.") == 1


def test_a_pilot_of_two_kinds_names_both_tests() -> None:
    """The power of accuracies is that of McNemar's test, and the power of losses that of the paired t-test."""
    both = [
        Case(name="", spread=Spread(discordant=0.2), differences=()),
        Case(name="", spread=Spread(deviation=1.0), differences=()),
    ]
    assert _tests(both[:1]) == "McNemar's exact test"
    assert _tests(both[1:]) == "the paired t-test, which approximates the test by sign flips"
    assert (
        _tests(both)
        == f"{_tests(both[:1])} for answers that are right or wrong, and by {_tests(both[1:])}, for numbers"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the spread must be one of FILE, --discordant, --accuracy with --other, and --deviation, got 'none'"),
        (["--discordant", "0.1", "--deviation", "1"], "got '--discordant and --deviation'"),
        (["--accuracy", "0.5"], "--accuracy and --other must be two different accuracies"),
        (["--discordant", "0.1", "--difference", "0.2"], "difference must be at most the share of items on which"),
        (["--deviation", "1", "--difference", "0"], "--difference must be a finite number > 0, got 0.0"),
        (["--deviation", "1", "--difference", "-0.2"], "--difference must be a finite number > 0, got -0.2"),
        (["--accuracy", "0.5", "--other", "0.6", "--difference", "nan"], "--difference must be a finite number > 0"),
        (["pilot.yaml", "--difference", "inf"], "--difference must be a finite number > 0, got inf"),
        (["--deviation", "-1"], "deviation must be a finite number > 0, got -1.0"),
        (["--deviation", "1", "--power", "1"], "power must be a number > 0.05 and < 1"),
        (["nothing.yaml"], "bench power: FILE must be a run file"),
        (["pilot.yaml", "--out", "empty"], "bench power: --out must be a folder with results"),
        (["pilot.yaml", "--metric", "accurcy"], "did you mean 'accuracy'?"),
        (["pilot.yaml", "--chain", "cgf"], "did you mean 'cfg'?"),
    ],
)
def test_what_cannot_be_planned(
    arguments: list[str], message: str, pilot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error with status 2."""
    monkeypatch.chdir(pilot.parent)
    result = logitkit_command("bench", "power", *arguments)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
