"""What a person sees on a terminal of 80 and of 60 columns; the terminal is emulated."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys

import pytest

from command_line import logitkit_command
from logitkit.progress import progress_bar
from terminal import Screen, on_terminal

WIDTHS = pytest.mark.parametrize("columns", [80, 60])


def test_the_emulator_moves_and_erases() -> None:
    """Cursor up, erasure of a line, and a break at the edge, by hand."""
    screen = Screen(4)
    screen.feed("abcdef\r\nghij\x1b[1A\r\x1b[2KX")
    assert screen.lines == ["abcd", "X", "ghij"]


@WIDTHS
def test_the_text_of_run_streams_in_whole_lines(
    monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str, columns: int
) -> None:
    """Words fill each line and no word is broken; joined, the lines are the text that a pipe gets."""
    settings = ["--model", speaking_checkpoint, "--chain", "temperature(1.0)", "--max-new-tokens", "60"]
    status, screen = on_terminal(monkeypatch, columns, "run", "Once", *settings)
    text = json.loads(logitkit_command("run", "Once", *settings, "--json").stdout)["text"]
    end = next(number for number, line in enumerate(screen.lines) if "tokens/s" in line)
    lines = screen.lines[:end]
    assert status == 0 and " ".join(line.strip() for line in lines).split() == text.split()
    assert len(text) > 2 * columns and max(map(len, lines)) <= columns
    words = text.split()
    for line, following in itertools.pairwise(lines):
        assert len(line) + 1 + len(following.split()[0]) > columns, "a line ends early"
        assert line.split()[-1] in words and following.split()[0] in words


def test_a_pipe_gets_the_text_alone(speaking_checkpoint: str) -> None:
    """Standard output holds the text of ``--json`` as it is; standard error holds the cost, and no bar."""
    settings = ["run", "Once", "--model", speaking_checkpoint, "--max-new-tokens", "40"]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    command = [sys.executable, "-m", "logitkit", *settings]
    piped = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert piped.stdout == json.loads(logitkit_command(*settings, "--json").stdout)["text"] + "\n"
    assert piped.stderr.startswith("40 tokens, ") and piped.stderr.count("\n") == 1, piped.stderr


def test_beams_show_a_bar_and_then_the_text(monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str) -> None:
    """The bar is gone at the end."""
    settings = ["--model", speaking_checkpoint, "--num-beams", "2", "--max-new-tokens", "8"]
    status, screen = on_terminal(monkeypatch, 60, "run", "Once", *settings)
    assert status == 0 and not any("━" in line or "0/8" in line for line in screen.lines)
    assert re.search(r"\w", screen.lines[0])


@pytest.mark.parametrize("columns", [80, 60, 40])
@pytest.mark.parametrize("command", ["list", "models list", "bench tasks", "doctor", "check top_k"])
def test_lists_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, command: str, columns: int) -> None:
    """No line is longer than the terminal, and every name is complete."""
    piped = logitkit_command(*command.split()).stdout
    status, screen = on_terminal(monkeypatch, columns, *command.split())
    assert status == 0 and max(map(len, screen.lines)) <= columns
    assert not any(line.endswith("…") for line in screen.lines)
    words = set(" ".join(screen.lines).replace("│", " ").replace(":", " ").split())
    names = {line.split()[0] for line in piped.splitlines()[1:]}
    assert names - words == set() and "│" not in piped and "\x1b" not in piped


@WIDTHS
@pytest.mark.parametrize("name", ["uscd", "router", "top_p"])
def test_manual_pages_break_between_words(monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> None:
    """The words on a terminal are those of a pipe, and no line is longer than the terminal."""
    piped = logitkit_command("show", name).stdout
    status, screen = on_terminal(monkeypatch, columns, "show", name)
    assert status == 0 and " ".join(screen.lines).split() == piped.split()
    assert max(map(len, screen.lines)) <= columns


@WIDTHS
def test_the_changes_of_run_and_inspect_fit(
    monkeypatch: pytest.MonkeyPatch, speaking_checkpoint: str, columns: int
) -> None:
    """The tables of changed tokens keep every probability whole."""
    settings = ["Once", "--model", speaking_checkpoint, "--chain", "cfg(1.5)", "--max-new-tokens", "8"]
    for command, more in (("run", "--trace"), ("inspect", "--text")):
        status, screen = on_terminal(monkeypatch, columns, command, *settings, more)
        text = "\n".join(screen.lines)
        assert status == 0 and "distribution most" in text and max(map(len, screen.lines)) <= columns
        assert len(re.findall(r"\b[01]\.\d\d\b", text)) >= 30  # three tokens before and after, five steps


def test_bars_are_shown_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A redirected standard error holds nothing of a bar."""
    with progress_bar("items", total=2, transient=False) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")
