"""The page on fair comparisons: its run file is the example, and its commands run in order as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from command_line import logitkit_command
from fresh import ROOT
from logitkit import models
from logitkit.bench.config import read

PAGE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "bench" / "tune.yaml"
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S) for line in block.splitlines()]


def test_the_run_file_of_the_page_is_the_example() -> None:
    """The first block in YAML is the file; the six commands of the introduction occur in the sections in order."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
    assert blocks[0] == EXAMPLE.read_text(encoding="utf-8")
    (six,) = re.findall(r"six commands:\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)
    places = [COMMANDS.index(line) for line in six.splitlines()]
    assert len(places) == 6 and places == sorted(places)


def test_the_commands_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str
) -> None:
    """On a tiny model and few sentences; the output of the first command is that of the page."""
    loaded = models.load(speaking_checkpoint)
    monkeypatch.setattr(models, "load", lambda name, **_: loaded)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: loaded[1])
    monkeypatch.setattr(models, "pull", lambda name, **_: Path(speaking_checkpoint))
    monkeypatch.chdir(tmp_path)
    few = EXAMPLE.read_text(encoding="utf-8").replace("{split: development}", "{split: development, samples: 6}")
    (tmp_path / "tune.yaml").write_text(few, encoding="utf-8")
    results: list[Any] = []
    for command in COMMANDS:
        results.append(logitkit_command(*shlex.split(command)[1:]))
        assert results[-1].exit_code == 0, (command, results[-1].output)
    (shown,) = re.findall(r"The first command prints:\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)
    first = COMMANDS.index("logitkit bench power --discordant 0.2 --difference 0.05")
    assert results[first].stdout.split() == shown.split()
    report = (tmp_path / "bench-results" / "final" / "report.md").read_text(encoding="utf-8")
    assert set(read(tmp_path / "final.yaml").chains) == {"plain", "guided", "sharper"}
    assert "sentences: none of its items was used to choose the settings." in report and "Warning" not in report
    assert "1 of 1 hypothesis is pre-registered" in report and "## Hypotheses" in report
