"""Reports: their content, and that all formats agree."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench_runs import tiny_run, write_costs, write_records, write_rows
from logitkit.bench.config import ChainEntry, CostEntry, Run, TaskEntry
from logitkit.bench.execution import Store
from logitkit.bench.report import Summary, markdown, page, show, summarise
from logitkit.bench.report.plots import sweeps
from logitkit.bench.report.tables import conclusions, sheets
from logitkit.bench.report.wording import mean_text, number
from logitkit.bench.speed import cost
from logitkit.cli import app


def test_the_content_of_a_summary(finished: tuple[Run, Store, Summary]) -> None:
    """A summary holds the mean of every metric over all records, with the baseline first."""
    run, store, summary = finished
    assert summary.done == summary.planned == len(store.records) - 3
    assert [table.task for table in summary.tables] == list(run.tasks)
    for table in summary.tables:
        assert [row.chain for row in table.rows] == list(run.chains)
        first = table.metrics[0].name
        for row in table.rows:
            own = [r for r in store.records.values() if (r.get("task"), r.get("chain")) == (table.task, row.chain)]
            assert row.cells[first].value == pytest.approx(sum(r["metrics"][first] for r in own) / len(own))
            assert (row.cells[first].comparison is None) == (row.chain == "plain")
    assert json.loads(json.dumps(summary.as_data(), allow_nan=False))["done"] == summary.done


def test_an_infinite_metric_is_reported_and_not_compared(finished: tuple[Run, Store, Summary]) -> None:
    """A nucleus makes words impossible; their infinite loss is shown and has no comparison."""
    _, _, summary = finished
    row = next(row for row in summary.tables[0].rows if row.chain == "<b>top</b>")
    loss = row.cells["loss"]
    assert loss.infinite == 4 == loss.samples and loss.comparison is None and loss.value == float("inf")
    sheet = sheets(summary)[0]
    assert "infinite on 4 of 4 samples" in sheet.rows[list(summary.run.chains).index("<b>top</b>")]


def test_interventions_have_a_column(finished: tuple[Run, Store, Summary]) -> None:
    """The deferral rate of a cascade has a column, which is empty for other strategies and falls with alpha."""
    sheet = sheets(finished[2])[0]
    place = list(sheet.headings).index("cascade deferral")
    shares = {row[0]: row[place] for row in sheet.rows}
    assert shares["plain"] == "" and float(shares["cascade 0.2"]) >= float(shares["cascade 0.8"])


def test_costs_are_paired(finished: tuple[Run, Store, Summary]) -> None:
    """The baseline costs 1, forwards are listed by model, and measured rounds are not repeated."""
    run, store, summary = finished
    prices = summary.costs["tiny"]
    assert prices["plain"].ratio == prices["plain"].low == prices["plain"].high == 1 == prices["plain"].peak
    assert prices["plain"].forwards == {"model": 1.0} and prices["plain"].rounds == 2
    assert set(prices["cascade 0.2"].forwards) == {"model", "weak"} and prices["cascade 0.2"].forwards["weak"] > 0
    assert cost.missing(run, store) == []
    more = run.model_copy(update={"cost": CostEntry(rounds=5, tokens=3)})
    assert len(cost.missing(more, store)) == 3


def test_the_ratio_is_a_median_within_rounds() -> None:
    """The cost is the median of the ratios 2, 3 and 10 within rounds; a slow round does not change its ratio."""
    rounds = [
        {
            name: {"seconds": seconds, "steps": 2, "tokens": 4, "forwards": {"model": 2}}
            for name, seconds in each.items()
        }
        for each in ({"a": 1.0, "b": 2.0}, {"a": 100.0, "b": 300.0}, {"a": 1.0, "b": 10.0})
    ]
    run = tiny_run(Path(), chains={"a": ChainEntry(), "b": ChainEntry()})
    found = cost.cost_of(run, "b", rounds, {"a": {"peak": 4}, "b": {"peak": 6}})
    assert (found.ratio, found.low, found.high, found.peak) == (3, 2, 10, 1.5)
    assert found.milliseconds == 2500 and found.forwards == {"model": 1}


def test_sweeps_are_found() -> None:
    """Three chains that differ in one number are a sweep; two chains, or chains with other differences, are not."""
    texts = {"a": "cfg(1.2)", "b": "cfg(1.5)", "c": "cfg(2.0)", "d": "top_p(0.9)", "e": "cfg(1.5, negative='x')"}
    assert sweeps(texts) == {("cfg", "scale"): {"a": 1.2, "b": 1.5, "c": 2.0}}
    assert sweeps({"a": "temperature(0.5) | top_p(0.9)", "b": "temperature(0.7) | top_p(0.9)", "c": "top_p(0.9)"}) == {}


def test_all_formats_hold_the_same_cells(finished: tuple[Run, Store, Summary]) -> None:
    """Terminal, Markdown and HTML report show every cell, and every row has a cell for each heading."""
    _, _, summary = finished
    text, html = markdown(summary, "Read this."), page(summary, {}, [], "Read this.")
    console = Console(width=250, record=True, file=io.StringIO())
    show(summary, console)
    shown = console.export_text()
    for sheet in sheets(summary):
        assert all(len(row) == len(sheet.headings) for row in sheet.rows)
        for row in sheet.rows:
            for cell in row:
                assert sheet.detail or cell in shown
                assert cell in text and cell in re.sub("&lt;", "<", re.sub("&gt;", ">", html))
    assert "Read this." in text and "Read this." in html
    assert all(sentence in text for sentence in conclusions(summary))


@pytest.mark.parametrize("width", [60, 80, 250])
def test_the_terminal_breaks_no_number(finished: tuple[Run, Store, Summary], width: int) -> None:
    """At every width of a terminal every word and number is complete, in the columns that are not left out."""
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    show(finished[2], console)
    words = set(console.export_text().split())
    for sheet in sheets(finished[2]):
        kept = [place for place, heading in enumerate(sheet.headings) if heading not in sheet.optional]
        assert sheet.detail or {word for row in sheet.rows for at in kept for word in row[at].split()} <= words
        assert set(sheet.optional).isdisjoint(["strategy", "conclusion", "n"])


def test_every_metric_has_an_interval(finished: tuple[Run, Store, Summary]) -> None:
    """Every mean of a share has an interval that is not a point, and the detail compares every metric."""
    _, _, summary = finished
    for table in summary.tables:
        for row in table.rows:
            for metric in table.metrics:
                cell = row.cells[metric.name]
                assert cell.low <= cell.value <= cell.high
                assert cell.low < cell.high or not metric.binary or cell.infinite
                assert f"[{number(cell.low)}, " in mean_text(cell) or cell.low == cell.high
    detail = [sheet for sheet in sheets(summary) if sheet.detail]
    assert len(detail) == sum(len(table.metrics) > 1 for table in summary.tables) == 3
    assert {row[1] for row in detail[0].rows} == {"accuracy ↑", "loss, nats/word ↓", "impossible ↓"}


def test_counts_of_one_are_in_the_singular(tmp_path: Path) -> None:
    """A run of one strategy on one sample writes no plural, and no interval that one sample cannot have."""
    write_rows(tmp_path / "one.jsonl", [{"text": "a b"}])
    tasks = {"words": TaskEntry(task="lambada", data="one.jsonl")}
    chains = {"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)")}
    run = tiny_run(tmp_path, chains=chains, tasks=tasks, seeds=[0], cost=CostEntry(rounds=1, tokens=2, memory=False))
    with Store(tmp_path / "results") as store:
        write_records(run, store, lambda chain, *_: {"accuracy": 1.0, "loss": 2.0 if chain == "cfg" else None})
        write_costs(run, store, {"plain": [1.0], "cfg": [2.0]})
    text = markdown(summarise(run, store))
    for words in ("1 task,", "2 of 2 answers", "infinite on 1 of 1 sample ", "- 1 comparison shows no difference"):
        assert words in text, words
    for words in ("Median of 1 paired round,", "2 tokens, ", "One round gives no range.", "Seed 0;", "2 strategies,"):
        assert words in text, words
    assert not re.search(r"\b1 (samples|tasks|strategies|rounds|tokens|comparisons|answers|paired rounds)\b", text)
    assert "| cfg | 1.000 [0.207, 1.000] | +0.000 [-0.793, +0.793] |" in text and "| 2.000 |" in text


def test_the_command_runs_resumes_and_reports_a_file(
    bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command runs a run file, resumes it without running a unit again, and reports it."""
    monkeypatch.chdir(tmp_path)
    file, out = bench_place / "line.yaml", tmp_path / "out"
    file.write_text(
        "models: [tiny]\nchains: ['', cfg(1.5)]\ntasks: {arc: {data: choices.jsonl}}\ncost: {rounds: 1, tokens: 2}\n"
    )
    run = CliRunner()
    first = run.invoke(app, ["bench", str(file), "--out", str(out), "--without-cost"])
    assert first.exit_code == 0 and "Cost" not in first.stdout, first.output
    second = run.invoke(app, ["bench", str(file), "--out", str(out)])
    assert second.exit_code == 0 and "Cost, tiny" in second.stdout
    assert "0 of 8 units are complete" in first.stderr and "accuracy" in first.stdout and (out / "report.html").exists()
    kept = (out / "results.jsonl").read_bytes()
    again = run.invoke(app, ["bench", str(file), "--out", str(out)])
    assert "8 of 8 units are complete" in again.stderr and (out / "results.jsonl").read_bytes() == kept
    reported = run.invoke(app, ["bench", "report", str(file), "--out", str(out), "--json"])
    assert json.loads(reported.stdout)["done"] == 8
    manifest = json.loads(next(out.glob("manifest-*.json")).read_text())
    assert manifest["run"]["tasks"]["arc"]["task"] == "arc" and {"versions", "revision", "hardware"} <= set(manifest)


def test_the_command_runs_flags(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags describe a run as a file does; its results are in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    words = bench_place / "words.jsonl"
    monkeypatch.setenv("LOGITKIT_DATA", str(bench_place))
    (bench_place / "lambada_test.jsonl").write_text(words.read_text())
    flags = ["--model", str(bench_place / "tiny"), "--task", "lambada", "--samples", "2", "--chain", "half=top_p(0.5)"]
    done = CliRunner().invoke(app, ["bench", *flags])
    assert done.exit_code == 0 and "half" in done.stdout and len(list((tmp_path / "bench-results").iterdir())) == 1


def test_options_beside_a_file_make_a_trial(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of the file with fewer samples, in a folder of its own; ``--json`` prints the summary alone."""
    monkeypatch.chdir(tmp_path)
    file = bench_place / "trial.yaml"
    tasks = "{arc: {data: choices.jsonl}, words: {task: lambada, data: words.jsonl}}"
    file.write_text(f"models: [tiny]\nchains: ['', cfg(1.5), cfg(2.0)]\ntasks: {tasks}\n")
    run = CliRunner()
    trial = run.invoke(app, ["bench", str(file), "--samples", "1", "--json"])
    assert trial.exit_code == 0 and json.loads(trial.stdout)["planned"] == 6, trial.output
    (folder,) = (tmp_path / "bench-results").iterdir()
    assert folder.name.startswith("trial-") and (folder / "report.html").exists()
    chosen = run.invoke(app, ["bench", str(file), "--task", "words", "--chain", "cfg(2.0)", "--samples", "2", "--json"])
    (table,) = json.loads(chosen.stdout)["tables"]
    assert [row["chain"] for row in table["rows"]] == ["plain", "cfg(2.0)"] and table["task"] == "words"
    assert run.invoke(app, ["bench", str(file)]).exit_code == 0
    assert (tmp_path / "bench-results" / "trial" / "report.html").exists()


@pytest.mark.parametrize("name", ["folder", "words.jsonl"])
def test_data_are_named_by_an_option(
    name: str, bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--data`` is the folder of the data, or the data file itself; the environment is as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOGITKIT_DATA", raising=False)
    (tmp_path / "folder").mkdir()
    for copy in ("folder/lambada_test.jsonl", "words.jsonl"):
        (tmp_path / copy).write_text((bench_place / "words.jsonl").read_text())
    flags = ["--model", str(bench_place / "tiny"), "--task", "lambada", "--chain", "cfg(1.5)", "--data", name]
    done = CliRunner().invoke(app, ["bench", *flags])
    (folder,) = (tmp_path / "bench-results").iterdir()
    assert done.exit_code == 0 and "8 of 8 answers" in (folder / "report.md").read_text(), done.output
    assert "LOGITKIT_DATA" not in os.environ


def test_a_first_benchmark_needs_no_data(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is part of logitkit, a chain and a model are a whole run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOGITKIT_DATA", raising=False)
    flags = ["--model", str(bench_place / "tiny"), "--task", "cut_sentences", "--samples", "3", "--chain", "cfg(1.5)"]
    done = CliRunner().invoke(app, ["bench", *flags, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["done"] == 6, done.output


def test_mistakes_end_the_command(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the file or the flags exits with status 2 and a message, and nothing is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOGITKIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # the hub is not asked
    file = bench_place / "mistakes.yaml"
    file.write_text("models: [tiny]\nchains: ['']\ntasks: {arc: {data: choices.jsonl}}\n")
    (bench_place / "long.jsonl").write_text(json.dumps({"text": "a " * 300}) + "\n")
    (bench_place / "long.yaml").write_text("models: [tiny]\nchains: ['']\ntasks: {lambada: {data: long.jsonl}}\n")
    for words, message in (
        (["bench", str(bench_place / "long.yaml")], "sample 0 must fit the 512 tokens of model tiny, got 599"),
        (["bench", "sped"], "no run file or command named 'sped'; did you mean 'speed'?"),
        (["bench", str(file), "--task", "acr"], "--task must be the name of a task of the run file (arc), got 'acr'"),
        (["bench", str(file), "--chain", "cfg(1.5)"], "add the chain to the file, or leave the file out"),
        (["bench", str(file), "--samples", "99"], "samples must be at most 4, the number of samples in the data"),
        (["bench", str(file), "--data", "no/such"], "--data must be a folder or a file that exists, got 'no/such'"),
        (["bench", "report", str(file), "--data", str(file)], "--data must be a folder, got"),
        (
            ["bench", "--task", "lambada"],
            "pass --data FOLDER, or set LOGITKIT_DATA, to name a folder",
        ),
        (["bench", "--task", "acr"], "no task named 'acr'; did you mean 'arc'?"),
        (["bench", str(file), "--engine", "locl"], "no engine named 'locl'"),
        (["bench", "report", str(file), "--out", "nowhere"], "--out must be a folder with results"),
    ):
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 2 and message in " ".join(refused.stderr.split()), refused.output


def test_the_command_lists_tasks() -> None:
    """``bench tasks --json`` lists the built-in tasks."""
    listed = json.loads(CliRunner().invoke(app, ["bench", "tasks", "--json"]).stdout)
    assert {task["name"] for task in listed} >= {"humaneval", "mbpp", "gsm8k", "arc", "lambada", "style"}
