"""The command ``label-divergence``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from logitkit.cli import app
from logitkit.registry.laws import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a tiny model."""
    path = tmp_path_factory.mktemp("tiny")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere", "out"], "prompts must be a file"),
        (["{empty}", "out"], "must hold a prompt, got none"),
        (["{prompts}", "out", "--field", "question"], "must be JSON with 'question'"),
        (["{prompts}", "out", "--judge", "fair"], "--judge must be answer, text, model:NAME, or module:function"),
    ],
)
def test_bad_input_gives_one_line(arguments: list[str], message: str, folder: str, tmp_path: Path) -> None:
    """Bad input ends with exit status 2 and a message without a traceback."""
    files = {"empty": tmp_path / "empty.txt", "prompts": tmp_path / "prompts.jsonl"}
    files["empty"].write_text("\n")
    files["prompts"].write_text('{"text": "a"}\n')
    words = [word.format(**files) if "{" in word else word for word in arguments]
    words[1] = str(tmp_path / words[1])
    result = CliRunner().invoke(app, ["label-divergence", *words, "--small", folder, "--large", folder])
    assert result.exit_code == 2 and message in " ".join(result.output.split()) and "Traceback" not in result.output
