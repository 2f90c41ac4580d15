"""The commands of help texts, of docs/command_line.md and of docs/diagnostics.md run as they stand, on tiny models."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from command_line import logitkit_command
from logitkit import models
from logitkit.bench.config import example_run
from logitkit.bench.speed import static_cache
from logitkit.cli import app, bench_run, serve
from logitkit.execution import engine
from logitkit.processors.engine.weights_fingerprint import model_fingerprint
from logitkit.processors.searches import EntropyThreshold
from logitkit.registry import laws, reference_entropies
from logitkit.serving.row import Prompt

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "command_line.md"
TEXT = "The keeper wrote a letter. The gulls heard the letter of the keeper.\n"
WORD = Prompt(value="The keeper", kind="text")
RUN = """
models: [tiny]
chains: {plain: "", from_file: chain.yaml}
tasks: {lambada: {data: texts.jsonl}}
"""


def of_help() -> set[str]:
    """Return the examples of all help texts."""

    def lines(command: Any) -> set[str]:
        own = {line for line in (command.epilog or "").split("\n\n") if "logitkit " in line}
        return own.union(*(lines(child) for child in getattr(command, "commands", {}).values()))

    return lines(typer.main.get_command(app))


def of_pages() -> set[str]:
    """Return the commands of the pages."""
    pages = (PAGE, DOCS / "diagnostics.md", DOCS / "distributed.md", DOCS / "serve.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    return {line for line in lines if not line.startswith(("pip install ", "curl "))}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str) -> Path:
    """A folder with the files that the examples name; every model is a tiny one that speaks in words."""
    model, tokenizer = models.load(speaking_checkpoint)
    load = models.load

    torch.manual_seed(0)
    large = copy.deepcopy(model)  # similar, so that some of its tokens are those of the small model
    for weight in large.parameters():
        weight.data += 0.03 * torch.randn_like(weight)

    def tiny(name: str, *, like: Any = None) -> tuple[Any, Any]:
        return load(name) if name.endswith("tiny") else (large if "3B" in name or "gemma" in name else model, tokenizer)

    monkeypatch.setattr(models, "load", tiny)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: tokenizer)
    for name in ("pull", "path", "verify"):
        monkeypatch.setattr(models, name, lambda name, **_: Path(speaking_checkpoint))
    monkeypatch.setattr(laws, "check_modes", functools.partial(laws.check_modes, modes=["greedy"]))
    monkeypatch.setattr(static_cache, "BACKEND", "eager")  # inductor compiles for a minute
    monkeypatch.setenv("LOGITKIT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    example_run(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN)
    tuning = RUN.replace("lambada: {data: texts.jsonl}", "sentences: {split: development, samples: 3}")
    (tmp_path / "tune.yaml").write_text(tuning)
    (tmp_path / "chain.yaml").write_text("- name: temperature\n  params: {temperature: 0.5}\n")
    (tmp_path / "top_p.yaml").write_text("- name: top_p\n  params: {top_p: 0.9}\n")
    for name in ("book.txt", "english.txt", "german.txt"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text(TEXT)
    labelled = [{"question": "What?", "text": text, "label": number} for number, text in enumerate(TEXT.split(".")[:2])]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT.split(".")[:2]))
    labelled = [{"text": text, "label": number % 2} for number, text in enumerate(re.findall(r"\w+ \w+ \w+", TEXT))]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (tmp_path / "chat.jsonl").write_text(json.dumps({"role": "user", "content": "The keeper"}) + "\n")
    rows = [{"question": f"What is {number} plus 1?", "answer": f"#### {number + 1}"} for number in range(20)]
    (tmp_path / "gsm8k-test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = [{"prompt": sentence, "canonical_solution": sentence + "."} for sentence in TEXT.split(".")[:2]]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    shares = {"accuracy": 0.9, "above": 0.1, "right": 0.6, "tokens": 10}
    EntropyThreshold(nats=1.0, model=model_fingerprint(model), **shares).save(tmp_path / "threshold.json")
    return tmp_path


@pytest.mark.parametrize("example", sorted(of_help() | of_pages()))
def test_an_example_runs(example: str, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With status 0, in a folder that holds the files it names."""
    typed, _, command = example.rpartition(" | logitkit ")
    words = shlex.split(command if typed else example.removeprefix("logitkit "))
    if words[:2] == ["bench", "--task"]:  # 320 tokens for each of 20 items: the run is planned, and not carried out
        monkeypatch.setattr(bench_run, "_carry_out", lambda *_, **__: None)
    if words[-2:] == ["--engine", "ray"]:  # Ray itself has tests of its own; starting it takes seconds
        monkeypatch.setitem(engine.ENGINES, "ray", engine.ENGINES["local"])
        monkeypatch.setattr(engine, "require", lambda *_: None)
    if words[0] == "serve":  # everything but the server itself, which runs until it is stopped; its port may be taken
        monkeypatch.setattr(serve, "_listener", lambda *_: contextlib.nullcontext())
        monkeypatch.setattr(serve, "_run", lambda served, _: served.count_tokens(served.chain, [WORD]))
    if words[:2] == ["bench", "report"] or words[:3] == ["bench", "power", "run.yaml"]:
        assert logitkit_command("bench", "run.yaml", "--without-cost").exit_code == 0
    if words[:2] == ["bench", "choose"]:
        assert logitkit_command("bench", "tune.yaml", "--without-cost").exit_code == 0
    if words[0] == "train-router":
        pair = ["--small", "0.5B", "--large", "3B", "--tokens", "32"]
        assert logitkit_command("label-divergence", "prompts.jsonl", "labels.jsonl", *pair).exit_code == 0
    if words[0] == "train-adadec":  # a random model is not surer where it is right
        measured = torch.tensor([0.5, 2.5] * 30), torch.tensor([True, False] * 30)
        monkeypatch.setattr(reference_entropies, "reference_entropies", lambda *_: measured)
    if words == ["demo"]:  # byte_boundary needs the tokens of single bytes, which this model does not speak
        model, _ = models.load("smollm2-135m")
        monkeypatch.setattr(model.generation_config, "suppress_tokens", None)
    said = " ".join(shlex.split(typed)[1:]) + "\n" if typed else "Hello\n/quit\n"
    result = logitkit_command(*words, input=said)
    assert result.exit_code == 0, (example, result.output, result.exception)


def test_the_page_shows_every_command() -> None:
    """An example or a sentence for each command of the program, and for each exit status."""
    text = PAGE.read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for words in [f"{name} {child}" for child in getattr(command, "commands", {}) if child != "run"] or [name]:
            assert f"logitkit {words}" in text, words
    assert all(f"| {status} |" in text for status in (0, 1, 2, 130))
