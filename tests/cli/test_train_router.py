"""The command ``train-router``, on labels of ``label-divergence``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import logitkit
from logitkit.cli import app
from logitkit.processors.cascade import DIVERGENT, read_labels
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "three"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of two tiny models."""
    path = tmp_path_factory.mktemp("pair")
    for seed in (0, 1):
        tiny_model(seed).save_pretrained(path / str(seed))
        tiny_tokenizer().save_pretrained(path / str(seed))
    return [str(path / "0"), str(path / "1")]


def run(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_from_prompts_to_a_router(folders: list[str], tmp_path: Path, dtype: str) -> None:
    """The labels of label-divergence train a head with train-router, and a chain uses the head.

    Labels that were made in another dtype train it too.
    """
    prompts, labels, head = (tmp_path / name for name in ("prompts.jsonl", "labels.jsonl", "head"))
    prompts.write_text("".join(json.dumps({"question": text}) + "\n" for text in PROMPTS))
    models = ["--small", folders[0], "--large", folders[1]]
    judge = ["--judge", "logitkit.processors.cascade:SameText"]
    options = ["--field", "question", "--tokens", "8", "--dtype", dtype]
    result = run("label-divergence", str(prompts), str(labels), *models, *options, *judge)
    assert result.exit_code == 0 and "identical" in result.output, result.output
    targets = [label for prompt in read_labels(labels)[1] for label in prompt.labels]
    if len({label == DIVERGENT for label in targets}) == 1:  # training needs both kinds of labels
        lines = labels.read_text().splitlines()
        first = json.loads(lines[1])
        alternating = [(0, 2)[number % 2] for number in range(len(first["labels"]))]
        lines[1] = json.dumps(first | {"labels": alternating})
        labels.write_text("\n".join(lines) + "\n")
    result = run("train-router", str(labels), str(head), *models, "--epochs", "2", "--width", "8", "--json")
    assert result.exit_code == 0 and 0 <= json.loads(result.stdout)["threshold"] <= 1, result.output
    assert json.loads(result.stdout)["path"] == str(head)
    table = run("train-router", str(labels), str(head), *models, "--epochs", "2", "--width", "8")
    assert table.exit_code == 0 and f"{json.loads(result.stdout)['recall']:.4g}" in table.stdout
    assert {line.split("  ")[0] for line in table.stdout.splitlines()} > {"measure", "threshold", "held out loss"}
    call = logitkit.chain(f"router(large='big', head={str(head)!r})").bind(
        tiny_model(), tiny_tokenizer(), "a", big=tiny_model(1)
    )
    call.generate(max_new_tokens=2, do_sample=False)
    result = run("train-router", str(labels), str(head), "--small", folders[1], "--large", folders[0])
    assert result.exit_code == 2 and "trained for this pair of models, got one for another small" in result.output
