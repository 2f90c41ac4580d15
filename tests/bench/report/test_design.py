"""Design of experiments: what was tried is counted and corrected for, and settings are judged on other items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench_runs import tiny_run, write_records, write_rows
from command_line import logitkit_command
from logitkit.bench.config import ChainEntry, HypothesisEntry, Run, TaskEntry, read
from logitkit.bench.execution import Store
from logitkit.bench.execution.unit import samples
from logitkit.bench.report import Summary, design, holm, markdown, page, summarise
from logitkit.bench.report.statistics import sign_flips

RUN = """\
models: {tiny: {name: MODEL}}
chains:
  plain: ""
  cfg: {chain: cfg($scale), sweep: {scale: [1.2, 1.5, 2.0]}}
  top_p: {chain: temperature($t), sweep: {t: [0.5, 0.8]}}
  boundary: byte_boundary()
defaults: {split: development}
tasks:
  words: {task: lambada, data: texts.jsonl, samples: 9}
"""
LOSSES = {"cfg scale=1.2": 0.9, "cfg scale=1.5": 0.5, "cfg scale=2.0": 0.7, "top_p t=0.5": 1.2, "top_p t=0.8": 1.2}


def metrics(chain: str, task: str, number: int) -> dict[str, float]:
    """A loss that depends on the chain, and varies a little between the items."""
    return {"accuracy": float(number % 2), "loss": LOSSES.get(chain, 1.0) + number / 97, "impossible": 0.0}


@pytest.fixture
def tuning(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run file of a finished tuning run."""
    write_rows(tmp_path / "texts.jsonl", [{"text": f"the ship number {number}"} for number in range(24)])
    file = tmp_path / "tune.yaml"
    file.write_text(RUN.replace("MODEL", str(bench_place / "tiny")))
    monkeypatch.chdir(tmp_path)
    finished(read(file), tmp_path / "bench-results" / "tune")
    return file


def finished(run: Run, folder: Path, values: Callable[[str, str, int], dict[str, float]] = metrics) -> Summary:
    """Write the records of a run without running a model."""
    with Store(folder) as store:
        write_records(run, store, values)
    return summarise(run, store)


def test_a_tuning_run_says_so_and_warns_of_unequal_budgets(tuning: Path) -> None:
    """It names the split, the settings, and the strategies with fewer settings; what cannot be tuned is no strategy."""
    summary = summarise(read(tuning), Store(tuning.parent / "bench-results" / "tune"))
    said = design(summary)
    assert said[0] == "Comparisons with the baseline: 18. Holm's correction is over all of them."
    assert said[1:] == [
        "words: the development split, 9 items (seed 0, 50 % of the items are for development).",
        "A tuning run: it compares settings (cfg 3 settings, top_p 2 settings) and is no final comparison.",
        "Warning: unequal budgets. Fewer settings were tried of top_p 2 settings than of cfg 3 settings.",
        "No run file was registered before the first answer: all comparisons are exploratory.",
    ]
    assert all(sentence in markdown(summary) for sentence in said)
    html = page(summary, manifest={}, sessions=[])
    assert 'id="design"' in html and all(sentence.replace("'", "&#39;") in html for sentence in said)


def test_the_best_settings_are_written_for_the_held_out_split(tuning: Path) -> None:
    """The lowest loss wins, the first of two equal ones; the new file is read, and its report says how it was made."""
    result = logitkit_command("bench", "choose", "tune.yaml", "final.yaml", "--metric", "loss")
    assert result.exit_code == 0, result.output
    final = read(tuning.parent / "final.yaml")
    chains = {name: entry.chain for name, entry in final.chains.items()}
    assert chains == {"plain": "", "cfg": "cfg(1.5)", "top_p": "temperature(0.5)", "boundary": "byte_boundary()"}
    assert final.tasks["words"].split == "held_out" and final.tasks["words"].samples == 9
    assert final.compared_with == "plain" and final.tuned is not None and final.tuned.run == read(tuning).hash
    development = {sample.id for sample in samples(read(tuning), "words")}
    assert not development & {sample.id for sample in samples(final, "words")}
    said = design(finished(final, tuning.parent / "final"))
    assert said[0] == "Comparisons with the baseline: 9. Holm's correction is over all of them."
    assert "words: the held-out split, 9 items (seed 0, 50 % of the items are for development)." in said
    origin = f"The settings were chosen in run {read(tuning).hash} by loss, among: plain 1 setting, cfg 3 settings"
    assert any(each.startswith(origin) for each in said)
    assert "words: none of its items was used to choose the settings." in said
    assert said[-2].startswith("Warning: unequal budgets. Fewer settings were tried of top_p 2 settings")


def test_a_run_on_the_items_of_its_tuning_says_so(tuning: Path) -> None:
    """A changed seed of the split mixes the items: their number is named, and the tuning counts in the correction."""
    assert logitkit_command("bench", "choose", "tune.yaml", "final.yaml").exit_code == 0
    text = (tuning.parent / "final.yaml").read_text()
    text = text.replace("    split: held_out\n", "    split: held_out\n    split_seed: 1\n", 1)
    (tuning.parent / "mixed.yaml").write_text(text)
    summary = finished(read(tuning.parent / "mixed.yaml"), tuning.parent / "mixed")
    used = summary.used["words"]
    entry = HypothesisEntry(chain="cfg", task="words", metric="loss")
    hoped = summarise(summary.run.model_copy(update={"hypotheses": [entry]}), Store(tuning.parent / "mixed"))
    (tested,) = [each.cell.comparison for each in hoped.findings if each.cell and each.cell.comparison]
    assert tested.adjusted == pytest.approx(min(1, 19 * tested.p))
    assert 0 < used < 9 and summary.further == 18
    said = design(summary)
    assert f"words: {used} of its 9 items were used to choose the settings, so its figures are too good." in said
    assert said[0].endswith("Holm's correction is over them and over 18 by which the settings were chosen.")
    cell = next(row for row in summary.tables[0].rows if row.chain == "cfg").cells["loss"]
    assert cell.comparison is not None and cell.comparison.adjusted == pytest.approx(min(1, 27 * cell.comparison.p))


def test_settings_on_the_reported_items_are_no_honest_comparison(bench_place: Path, tmp_path: Path) -> None:
    """Without a split, the report says that the best of several settings looks too good."""
    chains = {"plain": ChainEntry()} | {f"cfg {s}": ChainEntry(chain=f"cfg({s})", strategy="cfg") for s in (1.2, 1.5)}
    tasks = {"words": TaskEntry(task="lambada", data="words.jsonl")}
    run = tiny_run(bench_place, chains=chains, tasks=tasks, resources={}, seeds=[0])
    said = design(finished(run, tmp_path))
    assert len(said) == 3 and said[1].startswith("Several settings (cfg 2 settings) are compared on the items of this")
    named = tiny_run(bench_place, chains={**chains, "cfg 1.5": ChainEntry(chain="cfg(1.5)")}, tasks=tasks, seeds=[0])
    assert run.hash == run.model_copy(update={"chains": {n: ChainEntry(chain=e.chain) for n, e in chains.items()}}).hash
    assert len(design(finished(named, tmp_path))) == 2


def test_an_unfinished_run_says_so(tuning: Path) -> None:
    """Seven chains lack their answer to a tenth item."""
    tuning.write_text(tuning.read_text().replace("samples: 9", "samples: 10"))
    said = design(summarise(read(tuning), Store(tuning.parent / "bench-results" / "tune")))
    assert said[0].startswith("Warning: the run is not finished, 7 answers are missing.")


def test_the_correction_is_over_all_that_was_tried(bench_place: Path, tmp_path: Path) -> None:
    """By hand: Holm over 2 strategies x 2 tasks x 3 metrics; ``correction: task`` keeps the tasks apart."""
    rng = np.random.default_rng(0)
    write_rows(tmp_path / "many.jsonl", [{"text": f"the ship number {number}"} for number in range(30)])
    noise = rng.normal(size=(3, 2, 30))

    def values(chain: str, task: str, number: int) -> dict[str, float]:
        shift = noise[["plain", "cfg", "top_p"].index(chain), int(task), number]
        return {"accuracy": float(shift > 0), "loss": shift + (chain == "cfg"), "impossible": 0.0}

    tasks = {name: TaskEntry(task="lambada", data=str(tmp_path / "many.jsonl")) for name in "01"}
    chains = {"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)"), "top_p": ChainEntry(chain="top_p(0.9)")}
    run = tiny_run(bench_place, chains=chains, tasks=tasks, resources={}, seeds=[0])
    summary = finished(run, tmp_path / "results", values)
    cells = [row.cells[m.name] for t in summary.tables for row in t.rows for m in t.metrics]
    found = [cell.comparison for cell in cells if cell.comparison is not None]
    assert summary.comparisons == len(found) == 12
    assert [each.adjusted for each in found] == pytest.approx(holm([each.p for each in found]))
    apart = summarise(run.model_copy(update={"correction": "task"}), Store(tmp_path / "results"))
    losses = [row.cells["loss"].comparison for row in apart.tables[1].rows[1:]]
    ps = [each.p for each in losses if each]
    assert [each.adjusted for each in losses if each] == pytest.approx(holm(ps))
    assert design(apart)[0].endswith("is over the strategies, for each task and metric separately.")


def test_a_large_family_can_still_show_a_difference() -> None:
    """The p-value of the signs is as small as 1 in 50,000, not 2 in 10,000, and that of no difference is unchanged."""
    assert sign_flips(np.full(30, 0.5) + np.arange(30) / 99) == pytest.approx(1 / 50_000)
    values = np.random.default_rng(3).normal(1.8, 1.0, 14)
    signs = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)  # all of them
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12))
    assert 0 < exact < 0.002 and abs(sign_flips(values) - exact) < 4 * (exact / 50_000) ** 0.5


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ("", ["tune.yaml", "tune.yaml"], "NEW must be a file that does not exist yet, got 'tune.yaml'"),
        ("", ["tune.yaml", "elsewhere/final.yaml"], "NEW must be a file *.yaml in the folder of FILE"),
        ("", ["tune.yaml", "final.txt"], "NEW must be a file *.yaml in the folder of FILE"),
        ("", ["tune.yaml", "final.yaml", "--metric", "los"], "did you mean 'loss'?"),
        ("samples: 9", ["tune.yaml", "final.yaml"], "the run must be finished, got '63 of 70 answers'"),
        ("split: development", ["tune.yaml", "final.yaml"], "the split of task words must be 'development', got None"),
    ],
)
def test_what_cannot_be_chosen(change: str, arguments: list[str], message: str, tuning: Path) -> None:
    """One error with status 2, and no file is written."""
    if change:
        changed = {"samples: 9": "samples: 10", "split: development": "samples: 9"}[change]
        tuning.write_text(tuning.read_text().replace(change, changed))
        if "split" in change:
            finished(read(tuning), tuning.parent / "bench-results" / "tune")
    before = sorted(path.name for path in tuning.parent.iterdir())
    result = logitkit_command("bench", "choose", *arguments)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert sorted(path.name for path in tuning.parent.iterdir()) == before


def test_ranks_over_tasks_decide(bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that wins three of four tasks is chosen, though its mean is infinite, and so the last, on the other."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "texts.jsonl", [{"text": f"the ship {number}"} for number in range(12)])
    task = {"task": "lambada", "data": "texts.jsonl", "split": "development"}
    content: dict[str, Any] = {
        "models": {"tiny": {"name": str(bench_place / "tiny")}},
        "chains": {"plain": "", "cfg": {"chain": "cfg($s)", "sweep": {"s": [1.1, 1.2, 1.3]}}},
        "tasks": dict.fromkeys("abcd", task),
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    table: dict[str, list[float | None]] = {
        "1.1": [1, 1, None, 1],
        "1.2": [2, 2, 1, 2],
        "1.3": [3, 3, 2, 3],
        "": [4] * 4,
    }

    def values(chain: str, task: str, number: int) -> dict[str, Any]:
        return {"accuracy": 0.0, "loss": table[chain.partition("=")[2]]["abcd".index(task)], "impossible": 0.0}

    finished(read(tmp_path / "tune.yaml"), tmp_path / "bench-results" / "tune", values)
    result = logitkit_command("bench", "choose", "tune.yaml", "final.yaml", "--metric", "loss")
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "final.yaml").chains["cfg"].chain == "cfg(1.1)"
