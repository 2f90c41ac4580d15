"""Ctrl-C: one line says what a command leaves behind, and the exit status is 130."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command_line import logitkit_command
from logitkit.cli import compare, tokenizer


def interrupted(*_: Any, **__: Any) -> None:
    """Stand in for what Ctrl-C interrupts."""
    raise KeyboardInterrupt


def test_nothing_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first file, the command says that there is none."""
    monkeypatch.setattr(compare, "load_model", interrupted)
    result = logitkit_command("compare", "a", "b", "text", "--html", "page.html")
    assert (result.exit_code, result.stderr) == (130, "compare: interrupted; no file was written\n")


def test_files_written_before_are_named(tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is complete when the table of the report is interrupted; missing folders of the page were created."""
    page = tmp_path / "new" / "folder" / "page.html"
    monkeypatch.setattr(tokenizer, "print_line", interrupted)
    result = logitkit_command("tokenizer", "report", tiny_checkpoint, "--out", page)
    assert result.exit_code == 130 and page.is_file()
    assert result.stderr == f"tokenizer: interrupted; written before: {page}\n"
