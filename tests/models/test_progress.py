"""The progress bar that every command shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from logitkit.models.progress import progress_bar


def test_bar_is_shown_on_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The final count and the printed messages go to standard error; standard output stays empty."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured stream for a terminal
    with progress_bar("items", total=2, transient=False) as bar:
        bar.advance()
        bar.print("half [b]way[/b]")
        bar.update(completed=2, description="all items")
    output = capsys.readouterr()
    assert output.out == ""
    assert "half [b]way[/b]" in output.err and "all items" in output.err and "2/2" in output.err


def test_disabled_bar_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """With ``enabled=False`` the body runs and nothing is written."""
    with progress_bar("items", total=1, enabled=False, unit="bytes", spinner=True) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_importing_models_does_not_import_rich() -> None:
    """rich is imported when a bar is shown, not when a model is looked up."""
    code = "import sys, logitkit.models; assert not {'rich', 'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
