"""The pages on benchmarking, performance, publishing and stability: their commands, files and tables are right."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer
from test_docs import DOCS, script

from logitkit.bench.config import (
    ChainEntry,
    CostEntry,
    HypothesisEntry,
    ModelEntry,
    ResourceEntry,
    Run,
    TaskEntry,
    TunedEntry,
    read,
)
from logitkit.cli import app
from logitkit.cli.plugin_template import write_plugin
from logitkit.registry import discover

PAGES = (
    "benchmarking",
    "experiments",
    "distributed",
    "gallery",
    "performance",
    "publishing",
    "tutorials/benchmark",
    "tutorials/plugin",
    "tutorials/generate",
)
COMMAND = re.compile(r"^!?(logitkit .*)$", re.MULTILINE)


def text(page: str) -> str:
    """Return a page of the documentation; a notebook as its page."""
    path = DOCS / f"{page}.md"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    written: str = script("notebooks").markdown(DOCS / f"{page}.ipynb")
    return written


def options_of(words: list[str]) -> tuple[str, set[str]]:
    """Return the name of the command that these words call, and its options."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        known = command.commands
        command = known[words.pop(0)] if words and words[0] in known else known["run"]  # bench: run is the default
    options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    return command.name, options | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist_with_their_options(page: str) -> None:
    """Every command in a block of a shell, and in the text between backticks."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL))
    commands = COMMAND.findall(blocks) + re.findall(r"`(logitkit [^`\n]+)`", text(page))
    assert commands
    for line in commands:
        _, *words = shlex.split(line.split(" > ")[0].split(" 2> ")[0])
        name, known = options_of(words)
        assert [word for word in words if word.startswith("--") and word not in known] == [], f"{name}: {line}"


def test_the_run_file_of_the_page_is_read(tmp_path: Path) -> None:
    """Its sweep makes three chains; the defaults apply to every task; nothing else than its two files is needed."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text("benchmarking"), re.MULTILINE | re.DOTALL)
    (tmp_path / "run.yaml").write_text(block)
    (tmp_path / "book.txt").write_text("\n\n".join(" ".join(f"word{n}" for n in range(k, k + 90)) for k in range(9)))
    (tmp_path / "texts.jsonl").write_text('{"text": "the ship left the harbour"}\n' * 4)
    run = read(tmp_path / "run.yaml")
    assert list(run.chains) == ["plain", "cfg", "style weight=0.05", "style weight=0.1", "style weight=0.2"]
    assert {entry.samples for entry in run.tasks.values()} == {4}
    assert run.cost is not None and run.cost.rounds == 5 and run.seeds == [0, 1]


def test_the_tables_hold_every_key_option_and_task() -> None:
    """They stand in the page as a clone shows it, equal to those of the code; each key is a row of its table.

    ``python docs/bench_tables.py`` writes them again.
    """
    tables = script("bench_tables")
    page = text("benchmarking")
    assert [path.stem for path in tables.PAGES if text(path.stem) != tables.filled(text(path.stem))] == []
    assert not re.search(r"-->\s*<!-- end -->", page)  # no table is empty
    for entry in (Run, ModelEntry, ChainEntry, ResourceEntry, TaskEntry, CostEntry, HypothesisEntry, TunedEntry):
        assert f"<!-- keys: {entry.__name__} -->" in text("benchmarking")
        names = [name for name in entry.model_fields if name not in tables.NOT_IN_FILES]
        assert [name for name in names if f"| `{name}` |" not in tables.keys(entry)] == []
    assert "| `--allow-code-execution` |" in page and "| `sweep` |" in page and "| `defaults` |" in page
    assert [name for name in discover(third_party="none").tasks() if f"| `{name}` |" not in page] == []


def test_a_new_plugin_is_built_as_the_page_says(tmp_path: Path) -> None:
    """The wheel holds the module and the entry point by which logitkit finds it."""
    plugin = write_plugin("quiet_words", discover(third_party="none"), tmp_path / "plugin")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(plugin.folder),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        assert archive.read(entry).decode().split() == ["[logitkit]", "quiet_words", "=", "logitkit_quiet_words"]
    assert "logitkit_quiet_words/processor.py" in names
    assert '[project.entry-points.logitkit]\nquiet_words = "logitkit_quiet_words"' in text("publishing")


def test_the_badge_counts_the_laws(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The block prints an image in Markdown with the number of laws that cfg keeps."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", text("publishing"), re.MULTILINE | re.DOTALL)
    here = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", here)
    exec(compile(block, "publishing", "exec"), vars(here))
    assert re.fullmatch(r"!\[laws kept: (\d+) of \1\]\(https://.*\1_of_\1-brightgreen\)\n", capsys.readouterr().out)
