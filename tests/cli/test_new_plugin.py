"""``logitkit new-plugin``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from command_line import logitkit_command
from logitkit.cli.plugin_template import FILES


def test_a_plugin_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is rendered, every Python file compiles, and the next commands are printed."""
    monkeypatch.chdir(tmp_path)
    result = logitkit_command("new-plugin", "quiet_words")
    assert result.exit_code == 0 and "cd logitkit-quiet-words" in result.stdout
    assert "logitkit check quiet_words" in result.stdout
    assert "The formula is in src/logitkit_quiet_words/processor.py." in result.stdout
    written = [path for path in Path("logitkit-quiet-words").rglob("*") if path.is_file()]
    assert len(written) == len(FILES) and all("{" + "{" not in path.read_text() for path in written)
    project = tomllib.loads(Path("logitkit-quiet-words/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["logitkit"] == {"quiet_words": "logitkit_quiet_words"}
    for path in written:
        if path.suffix == ".py":
            compile(path.read_text(), str(path), "exec")
    assert "class QuietWords(" in Path("logitkit-quiet-words/src/logitkit_quiet_words/processor.py").read_text()


def test_what_was_written_as_json(tmp_path: Path) -> None:
    """The name, the folder, every file, and the file of the formula."""
    result = logitkit_command("new-plugin", "mine", "--folder", tmp_path, "--json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["name"], data["folder"]) == (0, "mine", str(tmp_path))
    assert data["processor"] in data["files"] and all(Path(file).is_file() for file in data["files"])


def test_the_folder_can_be_chosen(tmp_path: Path) -> None:
    """``--folder`` accepts an empty folder."""
    assert logitkit_command("new-plugin", "mine", "--folder", tmp_path).exit_code == 0
    assert (tmp_path / "src" / "logitkit_mine" / "processor.py").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("QuietWords", "NAME must be snake_case and not a Python keyword, got 'QuietWords'; write quiet_words"),
        ("quiet-words", "write quiet_words"),
        ("lambda", "write a name such as quiet_words"),
        ("3x", "write a name such as quiet_words"),
        ("a/b", "write a_b"),
        ("", "write a name such as quiet_words"),
        ("top_p", "NAME must be free, got 'top_p', which logitkit offers; choose another name"),
    ],
)
def test_impossible_names_are_refused(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused name gives one message and exit status 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    result = logitkit_command("new-plugin", name)
    assert result.exit_code == 2 and message in result.stderr and not list(tmp_path.iterdir())


def test_a_folder_with_files_is_left_unchanged(tmp_path: Path) -> None:
    """A folder with files, a file, and a path below a file are refused."""
    (tmp_path / "mine").write_text("a file")
    for folder in (tmp_path, tmp_path / "mine", tmp_path / "mine" / "below"):
        result = logitkit_command("new-plugin", "quiet_words", "--folder", folder)
        assert result.exit_code == 2 and "new-plugin: --folder must be" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
