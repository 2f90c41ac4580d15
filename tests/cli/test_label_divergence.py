"""The command ``label-divergence``."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from logitkit.cli import app
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import wide_model


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
        (["{prompts}", "out", "--device", "toaster"], "device must be a device that torch has on this machine"),
        (["{prompts}", "out", "--dtype", "float8"], "dtype must be float32, bfloat16 or float16"),
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


@pytest.mark.parametrize("order", [1, -1])
def test_two_paddings_are_one_family(order: int, folder: str, tmp_path: Path) -> None:
    """One tokenizer padded to two widths gives labels in both directions; another tokenizer is refused in one line."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("ab\na <tool> b\n")
    wide = str(tmp_path / "wide")
    wide_model(280).save_pretrained(wide)
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens(["[PAD]"])
    tokenizer.save_pretrained(wide)
    small, large = (folder, wide)[::order]
    words = ["label-divergence", str(prompts), str(tmp_path / "labels.jsonl"), "--tokens", "4"]
    result = CliRunner().invoke(app, [*words, "--small", small, "--large", large])
    assert result.exit_code == 0 and "identical" in result.output
    data = json.loads(CliRunner().invoke(app, [*words, "--small", small, "--large", large, "--json"]).stdout)
    assert sum(data["labels"].values()) == data["tokens"] > 0
    foreign_tokenizer().save_pretrained(wide)
    result = CliRunner().invoke(app, [*words, "--small", small, "--large", large])
    said = " ".join(result.output.split())
    assert result.exit_code == 2 and "must have the tokenizer" in said and "two models of one family" in said
