"""Run files: short forms, sweeps, and reports of all mistakes with their lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench_runs import tiny_run
from logitkit import models
from logitkit.bench.config import CostEntry, Overrides, TaskEntry, runfile
from logitkit.bench.execution.unit import samples
from logitkit.errors import ParameterError, RunError
from logitkit.registry import default_registry

EXAMPLES = Path(__file__).parents[3] / "examples" / "bench"
GOOD = """\
models: [tiny]
resources:
  weak: {model: other}
chains:
  plain:
  cfg:
    chain: cfg($scale)
    sweep: {scale: [1.2, 1.5]}
  contrastive: {chain: contrastive(amateur='weak'), tasks: [arc]}
defaults: {batch: 2, samples: 3}
tasks:
  arc: {data: choices.jsonl}
  words: {task: lambada, data: words.jsonl, samples: 1}
seeds: 7
"""


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that loads a model: reading a run file must load none."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(models, "load", load)


def mistakes_of(folder: Path, text: str, **settings: Any) -> list[str]:
    """Return the mistakes of a run file with this text."""
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    path = folder / "run.yaml"
    path.write_text(text)
    with pytest.raises(RunError) as caught:
        runfile.read(path, **settings)
    assert str(caught.value).startswith(f"{path}: ") and "nothing was run" in str(caught.value)
    return caught.value.mistakes


def overridden(folder: Path, **changes: Any) -> Any:
    """Return the run of `GOOD` with some settings of the command line."""
    path = folder / "good.yaml"
    path.write_text(GOOD)
    return runfile.read(path, overrides=Overrides(**changes))


def test_settings_of_the_command_line_win_over_the_file(bench_place: Path) -> None:
    """Those of every task, the seeds, and the rounds of the cost; all else is as in the file."""
    run = overridden(bench_place, settings={"samples": 2}, seeds=[1, 2], rounds=3)
    assert [entry.samples for entry in run.tasks.values()] == [2, 2] and run.seeds == [1, 2]
    assert run.cost == CostEntry(rounds=3) and {entry.batch for entry in run.tasks.values()} == {2}
    assert overridden(bench_place) == runfile.read(bench_place / "good.yaml")


def test_entries_are_chosen_by_name(bench_place: Path) -> None:
    """The baseline stays; a sweep is chosen by its name or by that of one chain; unused resources are no mistake."""
    run = overridden(bench_place, chosen={"chains": ["cfg"], "tasks": ["words"]})
    assert list(run.chains) == ["plain", "cfg scale=1.2", "cfg scale=1.5"] and list(run.tasks) == ["words"]
    run = overridden(bench_place, chosen={"chains": ["cfg scale=1.5", "contrastive"], "models": ["tiny"]})
    assert list(run.chains) == ["plain", "cfg scale=1.5", "contrastive"]  # in the order of the file
    assert run.pairs()[-1] == ("tiny", "contrastive", "arc")
    with pytest.raises(ParameterError, match=r"--chain must be the name of a chain .*, got 'plian'; did you mean"):
        overridden(bench_place, chosen={"chains": ["plian"]})
    with pytest.raises(RunError, match="no chain named 'nothing'"):  # a mistake of the file is still reported
        (bench_place / "bad.yaml").write_text(GOOD + "baseline: nothing\n")
        runfile.read(bench_place / "bad.yaml", overrides=Overrides(chosen={"tasks": ["words"]}))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TaskEntry, "max_new_tokens"),
        (TaskEntry, "repeats"),
        (CostEntry, "tokens"),
        (CostEntry, "rounds"),
        (CostEntry, "batch"),
    ],
)
def test_numbers_without_sense_are_refused(kind: Any, name: str) -> None:
    """A number that would keep a machine busy for ever is one error."""
    with pytest.raises(ValidationError, match="less than or equal to"):
        kind.model_validate({"task": "arc", name: 10**7} if kind is TaskEntry else {name: 10**7})


def test_short_forms_are_written_out(bench_place: Path) -> None:
    """Lists, texts, defaults, sweeps and a single seed are expanded to full entries."""
    path = bench_place / "good.yaml"
    path.write_text(GOOD)
    run = runfile.read(path)
    assert {name: entry.chain for name, entry in run.chains.items()} == {
        "plain": "",
        "cfg scale=1.2": "cfg(1.2)",
        "cfg scale=1.5": "cfg(1.5)",
        "contrastive": "contrastive(amateur='weak')",
    }
    assert run.models["tiny"].name == "tiny" and run.seeds == [7] and run.compared_with == "plain"
    assert [(t.task, t.samples, t.batch) for t in run.tasks.values()] == [("arc", 3, 2), ("lambada", 1, 2)]
    assert ("tiny", "contrastive", "words") not in run.pairs() and ("tiny", "contrastive", "arc") in run.pairs()
    same = {"models": ["tiny"], "chains": {"plain": ""}, "tasks": {"arc": {"data": "choices.jsonl"}}}
    assert (
        runfile.from_data(same, folder=str(bench_place)).hash == runfile.from_data(same, folder=str(bench_place)).hash
    )


def test_all_mistakes_are_reported_at_once(bench_place: Path) -> None:
    """One error lists every mistake of a file, in the order of the lines."""
    text = """\
models: {tiny: tiny, big: smollm2-135n, far: {name: tiny, device: moon, dtype: int4}}
resources:
  weak: {model: other, corpus: corpus.txt}
  book: {corpus: nowhere.txt}
  idle: {model: other}
chains:
  plain: ""
  typo: ucsd()
  high: cfg(scale=-1)
  style: ngram_style('boook', 0.2)
  bytes: byte_ensemble(models=['weak'])
  bytes: byte_ensemble(models=['book'])
  where: {chain: cfg(1.5), tasks: [arcs], models: [tini]}
  swept: {chain: cfg($scal), sweep: {scale: [1]}}
defaults: {batch: 0}
tasks:
  lambda:
  arc: {sampels: 3, data: choices.jsonl}
  code: {task: humaneval, data: choices.jsonl}
  more: {task: arc, samples: 9, data: choices.jsonl}
  drawn: {task: lambada, sampling: true, data: words.jsonl}
  again: {task: free_text, repeats: 3, data: words.jsonl, parameters: {words: 3}}
  beams: {task: free_text, beams: 3, sampling: true, data: words.jsonl, parameters: {words: 3}}
  none: {task: gsm8k, data: gone.jsonl}
  wrong: {task: gsm8k, data: words.jsonl, parameters: {shots: many}}
seeds: [1, 1]
seed: 3
"""
    found = mistakes_of(bench_place, text)
    wanted = [
        (1, "models.big: no model named 'smollm2-135n'; did you mean 'smollm2-135m'?"),
        (1, "models.far.dtype: dtype must be one of 'float32', 'bfloat16', 'float16', got 'int4'"),
        (3, "resources.weak: must hold one of model, table and corpus, got model, corpus"),
        (4, "resources.book.corpus: no such file: nowhere.txt; looked at"),
        (8, "chains.typo.chain: no processor named 'ucsd'; did you mean 'uscd'?"),
        (9, "chains.high.chain: cfg: scale must be"),
        (10, "chains.style.chain: ngram_style names 'boook', which is not a resource"),
        (12, "chains.bytes: duplicate key, first in line 11"),
        (12, "chains.bytes: byte_ensemble cannot run under tokens (model tiny, model big): the generating model must"),
        (13, "chains.where.models: no model named 'tini'; did you mean 'tiny'?"),
        (13, "chains.where.tasks: no task named 'arcs'"),
        (14, "chains.swept.sweep: every $name of the chain must be in the sweep, got 'scal'"),
        (15, "defaults.batch: batch must be a whole number >= 1, got 0"),
        (17, "tasks.lambda.task: no task named 'lambda'; did you mean 'lambada'?"),
        (18, "tasks.arc.sampels: no setting named 'sampels'; did you mean 'samples'?"),
        (19, "tasks.code: executes programs that the model writes; pass --allow-code-execution"),
        (19, "tasks.code.data: HumanEval: row 0 must have 'task_id'"),
        (20, "tasks.more.samples: samples must be at most 4, the number of samples in the data, got 9"),
        (21, "tasks.drawn: the task scores given texts; leave out sampling, repeats and beams"),
        (22, "tasks.again.repeats: repeats must be 1 without sampling, got 3"),
        (23, "tasks.beams.beams: beams must be 1 with sampling, got 3"),
        (24, "tasks.none.data: task gsm8k: no data; looked at"),
        (25, "tasks.wrong.parameters: gsm8k: shots must be a whole number >= 0, got 'many'"),
        (26, "seeds: seeds must be different whole numbers, got [1, 1]"),
        (27, "seed: no setting named 'seed'; did you mean 'seeds'?"),
    ]
    numbers = [int(line.split(" ")[1].rstrip(":")) for line in found]
    assert numbers == sorted(numbers)
    for line, what in wanted:
        assert any(one.startswith(f"line {line}: {what}") for one in found), (line, what, found)
    assert len(found) == len(wanted), found


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("models: [", "line 1: not YAML"),
        ("- a", "must be a mapping with models, chains and tasks"),
        ("models: [tiny]\nchains: [cfg()]\n", "tasks: tasks must be a mapping of names, or a list of names, got None"),
        ("models: [tiny]\nchains: [cfg()]\ntasks: 3\n", "line 3: tasks: tasks must be a mapping"),
        (GOOD.replace("seeds: 7", "baseline: plan"), "line 14: baseline: no chain named 'plan'; did you mean 'plain'?"),
        (GOOD + "cost: {rounds: 0}", "line 15: cost.rounds: rounds must be a whole number >= 1 and <= 1000, got 0"),
        (
            GOOD.replace("['weak']", "'weak'").replace("plain:\n", "plain: {tasks: [arc]}\n"),
            "the baseline 'plain' must also run on model tiny, task words",
        ),
        (
            GOOD.replace("{model: other}", "{corpus: latin.txt}").replace(
                "contrastive(amateur='weak')", "ngram_style('weak')"
            ),
            "latin.txt must be text in utf-8",
        ),
        (GOOD.replace("amateur='weak'", "amateur='tiny'"), "line 3: resources.weak: no chain uses this resource"),
    ],
)
def test_one_mistake(bench_place: Path, text: str, mistake: str) -> None:
    """A single mistake is reported with its place and the broken rule."""
    found = mistakes_of(bench_place, text)
    assert len(found) == 1 and mistake in found[0]


def test_a_mode_that_a_processor_refuses(bench_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that needs a mode which the Spec of a processor refuses is a mistake of the chain."""
    import logitkit

    monkeypatch.setitem(vars(logitkit.describe("cfg")), "modes", {"loglikelihood": "it only generates", "beams": "no"})
    found = mistakes_of(bench_place, GOOD)
    assert [one.partition(": ")[2] for one in found] == [
        f"chains.cfg scale={scale}: cfg cannot run under loglikelihood (task arc, task words): it only generates"
        for scale in ("1.2", "1.5")
    ]


def test_code_is_run_only_where_it_is_allowed(bench_place: Path) -> None:
    """A task that executes code is refused without the flag, and accepted with it under the same hash."""
    row = '{"task_id": "a", "prompt": "", "test": "", "entry_point": "f"}\n'
    (bench_place / "code.jsonl").write_text(row)
    text = GOOD.replace("task: lambada, data: words.jsonl", "task: humaneval, data: code.jsonl")
    assert "--allow-code-execution" in mistakes_of(bench_place, text)[0]
    run = runfile.read(bench_place / "run.yaml", allow_code_execution=True)
    assert run.allow_code_execution and run.hash == run.model_copy(update={"allow_code_execution": False}).hash


@pytest.mark.data
def test_the_examples_are_valid(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example run files have no mistakes, except for models of the user; the reports belong to these runs."""
    monkeypatch.setenv("LOGITKIT_DATA", str(shared_data))
    runfile.read(EXAMPLES / "run.yaml", allow_code_execution=True)
    run = runfile.read(EXAMPLES / "large.yaml", allow_code_execution=True)
    assert f"run {run.hash}" in (EXAMPLES / "report.md").read_text()
    assert all('id="answers-data"' not in page.read_text() for page in EXAMPLES.glob("*.html"))  # no text of the data
    with pytest.raises(RunError) as caught:
        runfile.read(EXAMPLES / "cascade.yaml")
    assert len(caught.value.mistakes) == 2 and all("no model named './models/" in one for one in caught.value.mistakes)
    assert all((EXAMPLES / name).exists() for name in ("report.html", "cascade.md", "cascade.html"))


def test_the_folder_is_not_part_of_the_hash(bench_place: Path, tmp_path: Path) -> None:
    """Runs in two folders have the same hash."""
    assert tiny_run(bench_place).hash == tiny_run(bench_place, folder=str(tmp_path)).hash


@pytest.mark.data
def test_the_large_example_has_the_samples_that_it_promises(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The large run is read without a mistake, and each scored task has 200 samples, or all where there are fewer."""
    monkeypatch.setenv("LOGITKIT_DATA", str(shared_data))
    run = runfile.read(EXAMPLES / "large.yaml", allow_code_execution=True)
    scored = [
        name for name, task in run.tasks.items() if default_registry().describe_task(task.task).mode != "generate"
    ]
    counts = {name: len(samples(run, name)) for name in scored}
    assert counts == {"lambada": 200, "lambada_cut": 200, "arc": 200, "passages": 200, "span": 164}
