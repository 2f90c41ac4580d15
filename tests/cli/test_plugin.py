"""``logitkit new-plugin`` and ``logitkit check`` as typed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from logitkit.cli import app
from logitkit.cli.plugin_template import FILES


def logit(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments))


def test_a_plugin_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file says the names; Python can be read; the next commands are told."""
    monkeypatch.chdir(tmp_path)
    done = logit("new-plugin", "quiet_words")
    assert (
        done.exit_code == 0 and "cd logitkit-quiet-words" in done.stdout and "logitkit check quiet_words" in done.stdout
    )
    written = [path for path in Path("logitkit-quiet-words").rglob("*") if path.is_file()]
    assert len(written) == len(FILES) and all("{" + "{" not in path.read_text() for path in written)
    project = tomllib.loads(Path("logitkit-quiet-words/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["logitkit"] == {"quiet_words": "logitkit_quiet_words"}
    for path in written:
        if path.suffix == ".py":
            compile(path.read_text(), str(path), "exec")
    assert "class QuietWords(" in Path("logitkit-quiet-words/src/logitkit_quiet_words/processor.py").read_text()


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    """Empty or absent."""
    assert logit("new-plugin", "mine", "--folder", str(tmp_path)).exit_code == 0
    assert (tmp_path / "src" / "logitkit_mine" / "processor.py").is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("QuietWords", "NAME must be snake_case and no word of Python, got 'QuietWords'; write quiet_words"),
        ("quiet-words", "write quiet_words"),
        ("lambda", "write a name such as quiet_words"),
        ("3x", "write a name such as quiet_words"),
        ("a/b", "write a_b"),
        ("", "write a name such as quiet_words"),
        ("top_p", "NAME must be free, got 'top_p', which logitkit offers; choose another"),
    ],
)
def test_names_that_cannot_be(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit status 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    done = logit("new-plugin", name)
    assert done.exit_code == 2 and says in done.stderr and not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """So is one that cannot be made."""
    (tmp_path / "mine").write_text("a file")
    for folder in (tmp_path, tmp_path / "mine", tmp_path / "mine" / "below"):
        done = logit("new-plugin", "quiet_words", "--folder", str(folder))
        assert done.exit_code == 2 and "new-plugin: --folder must be" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_check_tells_by_table_json_and_status() -> None:
    """Anyone's class, with its parameters."""
    fine = logit("check", "transformers:TopKLogitsWarper(top_k=5)")
    assert fine.exit_code == 0 and " NO " not in fine.stdout and "no neutral value" in fine.stdout
    broken = logit("check", "transformers:InfNanRemoveLogitsProcessor", "--json")
    told = json.loads(broken.stdout)
    assert broken.exit_code == 1 and told["failures"] == 1
    (why,) = [law["why"] for law in told["laws"] if not law["kept"]]
    assert why == "an impossible token became possible"


def test_check_finds_what_lies_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory of one's own, not installed."""
    text = "from transformers import TopPLogitsWarper\n\ndef nucleus(tokenizer):\n    return TopPLogitsWarper(0.9)\n"
    (tmp_path / "not_installed.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert logit("check", "not_installed:nucleus").exit_code == 0


def test_check_tries_the_ways_of_generating() -> None:
    """Of a name; a class has no example to generate with."""
    told = json.loads(logit("check", "top_k", "--modes", "--json").stdout)
    assert told["failures"] == 0 and all(cell["right"] for cell in told["modes"]) and len(told["modes"]) == 14
    assert "| refused" in logit("check", "byte_ensemble", "--modes").stdout.replace("\u2502", "|")
    refused = logit("check", "transformers:LogitNormalization", "--modes")
    assert refused.exit_code == 2 and "--modes must be asked of a processor's name" in refused.stderr
