"""Reports: their content, that all formats agree, and that the page is self-contained."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench_runs import tiny_run
from logitkit.bench.config import ChainEntry, CostEntry, Run
from logitkit.bench.execution import Store, carry_out, environment
from logitkit.bench.report import Summary, markdown, page, show, summarise
from logitkit.bench.report.plots import plots, sweeps
from logitkit.bench.report.tables import conclusions, sheets
from logitkit.bench.speed import cost
from logitkit.cli import app


@pytest.fixture(scope="module")
def finished(bench_place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Store, Summary]:
    """Return a finished run with a sweep, a strategy whose name contains HTML, and costs."""
    chains = {"plain": ChainEntry()} | {f"cfg {s}": ChainEntry(chain=f"cfg({s})") for s in (1.2, 1.5, 2.0)}
    chains |= {"<b>top</b>": ChainEntry(chain="top_p(0.2)")}
    cascade = {f"cascade {a}": ChainEntry(chain=f"cascade(large='weak', alpha={a})") for a in (0.2, 0.5, 0.8)}
    run = tiny_run(bench_place, chains=chains | cascade, cost=CostEntry(rounds=2, tokens=3), seeds=[0])
    store = Store(tmp_path_factory.mktemp("results"))
    with store:
        store.begin(run, environment())
        carry_out(run, store)
        cost.carry_out(run, store)
    return run, store, summarise(run, store)


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
    assert "infinite" in sheet.rows[list(summary.run.chains).index("<b>top</b>")]


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


def test_the_front_by_hand() -> None:
    """The Pareto front holds the points that no other point dominates."""
    assert list(cost.front([(1, 1), (2, 3), (3, 2), (4, 4), (1, 0), (4, 4)])) == [True, True, False, True, False, True]


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
                assert cell in text and cell in shown and cell in re.sub("&lt;", "<", re.sub("&gt;", ">", html))
    assert "Read this." in text and "Read this." in html
    assert all(sentence in text for sentence in conclusions(summary))


class Outside(HTMLParser):
    """Collects the tags of a page, and the attributes by which it would fetch something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.found += [f"{tag} {name}" for name, value in attrs if name.startswith("on") or "url(" in (value or "")]


def test_the_page_is_self_contained(finished: tuple[Run, Store, Summary]) -> None:
    """The page has no link, image, font or script, names are escaped, and each plot has a label for screen readers."""
    run, store, summary = finished
    html = page(summary, json.loads(store.manifest(run).read_text()), store.sessions(run))
    outside = Outside(html)
    assert outside.found == [] and not outside.tags & {"script", "link", "img", "iframe", "object", "base", "b"}
    assert "@import" not in html and "url(" not in html and "default-src 'none'" in html
    drawn = plots(summary)
    assert html.count('role="img" aria-label=') == len(drawn) > 5
    titles = [plot.title for plot in drawn]
    assert "lambada, tiny: quality against cost" in titles and any("against scale of cfg" in t for t in titles)
    assert any("against cascade deferral" in t for t in titles)
    assert all(f"{place}" for plot in drawn for place, _, _ in plot.legend)
    assert '"revision"' in html.replace("&#34;", '"') and run.hash in html


def browser() -> str | None:
    """Return the path of a Chromium, None if the system has none."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


def test_the_page_opens_in_a_browser(finished: tuple[Run, Store, Summary], tmp_path: Path) -> None:
    """A browser without a network lays out every table and plot, and its screenshot is not blank."""
    chromium = browser()
    if chromium is None:
        pytest.skip("no Chromium on this system")
    run, store, summary = finished
    (tmp_path / "report.html").write_text(page(summary, {}, store.sessions(run)), encoding="utf-8")
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,2000"]
    address = (tmp_path / "report.html").as_uri()
    dom = subprocess.run(
        [*flags, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert dom.count("<table>") == len(sheets(summary)) and dom.count("<svg ") == len(plots(summary))
    shot = tmp_path / "report.png"
    subprocess.run([*flags, f"--screenshot={shot}", address], capture_output=True, timeout=120, check=True)
    data = shot.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1200, 2000) and len(data) > 50_000


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


def test_mistakes_end_the_command(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the file or the flags exits with status 2 and a message, and nothing is run."""
    monkeypatch.chdir(tmp_path)
    file = bench_place / "mistakes.yaml"
    file.write_text("models: [tiny]\nchains: ['']\ntasks: {arc: {data: choices.jsonl}}\n")
    (bench_place / "long.jsonl").write_text(json.dumps({"text": "a " * 300}) + "\n")
    (bench_place / "long.yaml").write_text("models: [tiny]\nchains: ['']\ntasks: {lambada: {data: long.jsonl}}\n")
    for words, message in (
        (["bench", str(bench_place / "long.yaml")], "sample 0 must fit the 512 tokens of model tiny, got 599"),
        (["bench", "sped"], "no run file or command named 'sped'; did you mean 'speed'?"),
        (["bench", str(file), "--task", "arc"], "--task must be left out where a run file is given"),
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
