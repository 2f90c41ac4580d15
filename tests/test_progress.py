"""The progress bar that every command shows."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

import pytest

from logitkit import progress
from logitkit.processors.alignment import AlignmentVocabulary, align
from logitkit.processors.alignment.nearest import nearest_targets
from logitkit.progress import progress_bar
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer


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


def test_in_a_pipe_a_line_says_how_far_the_work_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each interval of time one line, where the bar asks for lines; none of a bar that is disabled."""
    seconds = iter([0.0, 10.0, 31.0, 40.0, 61.5, 0.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds, 61.5))
    with progress_bar("items", total=4, piped=True) as bar:
        for _ in range(3):
            bar.advance()
    assert capsys.readouterr() == ("", "items: 2 of 4\n")
    with progress_bar("items", total=1, piped=True, enabled=False) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_disabled_bar_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """With ``enabled=False`` the body runs and nothing is written."""
    with progress_bar("items", total=1, enabled=False, unit="bytes", spinner=True) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_a_bar_inside_a_bar_is_a_line_of_its_display(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two displays would write over each other; the inner line is gone when its body ends, also by an error."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar("outer", total=2, transient=False) as outer:
        with pytest.raises(KeyError), progress_bar("inner", total=3) as inner:
            inner.advance(2)
            raise KeyError
        outer.advance(2)
    shown = capsys.readouterr().err
    last = shown[shown.rindex("outer") :]
    assert "2/2" in last and "inner" not in last
    with progress_bar("next", total=1, transient=False) as bar:
        bar.advance()
    assert "outer" not in capsys.readouterr().err


def test_alignments_show_a_bar_on_a_terminal_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pipe the standard error stays empty; on a pseudo-terminal both long steps show this bar."""
    main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())

    def work() -> None:
        align("embedding", helper, main)
        nearest_targets([b"FAILURE"], [b"FILE", b"FAIL"])

    work()
    assert capfd.readouterr() == ("", "")
    here, there = pty.openpty()
    with monkeypatch.context() as patch, os.fdopen(there, "w") as terminal:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm")
        work()
        terminal.flush()
        shown = ""
        while select.select([here], [], [], 0.2)[0]:
            shown += os.read(here, 65536).decode()
    os.close(here)
    assert capfd.readouterr() == ("", "")
    assert "neighbours" in shown and "edit distances" in shown and "it/s" not in shown


def test_importing_models_does_not_import_rich() -> None:
    """rich is imported when a bar is shown, not when a model is looked up."""
    code = "import sys, logitkit.models; assert not {'rich', 'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
