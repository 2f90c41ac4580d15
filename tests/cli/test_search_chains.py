"""Chains with a search or a selector on the command line: ``run``, ``inspect``, ``bench``, and wrong orders."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

import logitkit
from command_line import logitkit_command
from logitkit.errors import NoEffectWarning
from logitkit.registry.laws import tiny_model, tiny_tokenizer

CHAINS = {
    "smc": "temperature(0.8) | smc(particles=3)",
    "goose": "cfg(1.2) | goose(budget=6)",
    "rewind": "rewind(['e', 'a'])",
    "speculate": "speculate(2)",
    "adadec": "adadec(threshold=4.0, top=2, depth=2)",
    "beams": "beams(width=3)",
    "contrastive_search": "contrastive_search(0.6, top=3)",
    "best_of": "temperature(1.2) | best_of(n=3)",
    "mbr": "smc(particles=3) | mbr(utility='exact_match')",
}
KINDS = pytest.mark.parametrize("name", CHAINS)


def test_every_search_and_selector_is_tried() -> None:
    assert set(CHAINS) == {*logitkit.names("search"), *logitkit.names("selector")}


@KINDS
def test_run(name: str, tiny_checkpoint: str) -> None:
    """The text is that of `logitkit.generate` under the same seed; the cost is printed, and part of the JSON."""
    command = ["run", "Once", "--model", tiny_checkpoint, "--chain", CHAINS[name], "--max-new-tokens", 4, "--seed", 7]
    result = logitkit_command(*command, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    torch.manual_seed(7)
    want = logitkit.generate(tiny_model(), tiny_tokenizer(), "Once", CHAINS[name], max_new_tokens=4)
    report = want.trace.search
    assert report is not None and data["text"] == want.texts[0]
    assert data["trace"]["search"]["forwards"] == report.forwards
    printed = logitkit_command(*command)
    assert printed.exit_code == 0 and want.texts[0] in printed.stdout
    assert f"{report.search}: {report.forwards} forwards, {report.tokens} tokens read" in printed.stderr
    if name == "rewind":
        assert f"rewinds {report.notes['rewinds']}" in printed.stderr


@KINDS
def test_run_samples_on_request(name: str, tiny_checkpoint: str) -> None:
    """``--do-sample`` is no contradiction: a search that draws draws anyway, and one that does not warns."""
    command = ["run", "Once", "--model", tiny_checkpoint, "--chain", CHAINS[name], "--max-new-tokens", 3]
    with warnings.catch_warnings():
        warnings.simplefilter("always", NoEffectWarning)
        result = logitkit_command(*command, "--do-sample", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["text"], result.output
    warned = f"do_sample=True changes nothing: {name} draws no token" in " ".join(result.stderr.split())
    assert warned == (name in ("beams", "contrastive_search"))


@KINDS
def test_inspect_names_the_way_out(name: str, tiny_checkpoint: str) -> None:
    result = logitkit_command("inspect", "Once", "--model", tiny_checkpoint, "--chain", CHAINS[name], "--text")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert f"error: inspect: a chain must write one row from left to right, got {name}" in said
    assert "use logitkit run" in said


@KINDS
def test_num_beams_is_refused(name: str, tiny_checkpoint: str) -> None:
    """In one line that names the search, before anything is generated."""
    command = ["run", "Once", "--model", tiny_checkpoint, "--chain", CHAINS[name], "--max-new-tokens", 3]
    result = logitkit_command(*command, "--num-beams", 2)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and "replaces beam search" in said and said.count("error: ") == 1, result.output


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("smc(2) | top_p(0.9)", "smc must stand behind top_p"),
        ("rewind(['a']) | cfg(1.5)", "rewind must stand behind cfg"),
        ("adadec(1.0) | goose()", "at most one search, got adadec and goose"),
        ("mbr() | rewind(['a'])", "mbr must stand behind rewind"),
        ("best_of() | mbr()", "at most one selector, got best_of and mbr"),
        ("rewind()", "rewind: phrases must be given"),
        ("rewind('a')", "rewind: phrases must be a list, each text"),
        ("rewind([])", "rewind: phrases must be one or more texts"),
        ("adadec(-1.0)", "adadec: threshold must be a number >= 0 or inf or text"),
        ("adadec('absent.json')", "adadec: threshold must be a number of nats, or a file"),
    ],
)
def test_wrong_chains_are_one_line(chain: str, words: str, tiny_checkpoint: str) -> None:
    result = logitkit_command("run", "Once", "--model", tiny_checkpoint, "--chain", chain, "--max-new-tokens", 2)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and said.count("error: ") == 1 and words in said, result.output


def test_bench_compares_searches(tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with a strategy of each kind; the summary has a row for each, and the forwards of its search."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {number} plus 1?", "answer": f"#### {number + 1}"} for number in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chains = {"plain": "", **CHAINS}
    task = {"data": "rows.jsonl", "samples": 2, "batch": 2, "max_new_tokens": 4, "parameters": {"shots": 1}}
    run = {"models": [tiny_checkpoint], "chains": chains, "tasks": {"gsm8k": task}}
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    result = logitkit_command("bench", "run.yaml", "--json")
    assert result.exit_code == 0, result.output
    assert set(chains) <= {name for name in chains if name in result.stdout}
    again = logitkit_command("bench", "run.yaml", "--json")
    assert again.exit_code == 0 and json.loads(again.stdout) == json.loads(result.stdout)


@KINDS
def test_bench_speed_measures_the_example(name: str, tiny_checkpoint: str) -> None:
    settings = ["--model", tiny_checkpoint, "--tokens", "3", "--rounds", "1", "--batch", "1", "--no-memory"]
    result = logitkit_command("bench", "speed", *settings, "--only", name, "--no-processors")
    assert result.exit_code == 0 and f"| {name}" in result.stdout, result.output


@KINDS
def test_show(name: str) -> None:
    page = logitkit_command("show", name)
    assert page.exit_code == 0 and name in page.stdout


def test_check_runs_the_laws_of_searches() -> None:
    result = logitkit_command("check", "rewind", "--json")
    assert result.exit_code == 0, result.output


def test_drafts_that_another_model_checks(tiny_checkpoint: str, tmp_path: Path) -> None:
    """The text is that of the chain without the search; the forwards of both models are printed."""
    tiny_model(1).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    steps = f"ensemble(['{tmp_path}'])"
    command = ["run", "Once", "--model", tiny_checkpoint, "--max-new-tokens", 5, "--chain"]
    plain, checked = (logitkit_command(*command, chain) for chain in (steps, f"{steps} | speculate(2)"))
    assert plain.exit_code == checked.exit_code == 0, checked.output
    assert checked.stdout == plain.stdout
    assert "speculate: " in checked.stderr and "accepted drafts" in checked.stderr, checked.stderr
