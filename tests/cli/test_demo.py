"""``logitkit demo``: three acts with an effect, each with one figure of cost, at any width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from command_line import logitkit_command
from logitkit.cli.demo_acts import ACTS

COST = re.compile(r"^cost +\d+\.\d times the time of plain decoding", re.MULTILINE)


@pytest.mark.model
def test_every_act_changes_the_answer() -> None:
    """Plain decoding loses the cut word, knows no pirates and invents examples; the chains do not."""
    result = logitkit_command("demo")
    assert result.exit_code == 0, result.output
    acts = re.split(r"^\d\. ", result.output.partition("What to try next")[0], flags=re.MULTILINE)[1:]
    assert len(acts) == len(ACTS) and all(len(COST.findall(act)) == 1 for act in acts)
    cut, style, examples = acts
    assert "\nplain          ganu is a small" in cut and "\nbyte_boundary  nce is Paris." in cut
    assert re.search(r"^plain .*sunset", style, re.MULTILINE) and re.search(r"captain said.*We be", style, re.DOTALL)
    assert "Input: Germany" in examples and re.search(r"^uscd +Madrid$", examples, re.MULTILINE)
    assert not re.search(r" $", result.output, re.MULTILINE)
    assert "warning" not in result.output


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("width", [60, pytest.param(80, marks=pytest.mark.long)])
def test_on_a_terminal(width: int) -> None:
    """No line is wider than the terminal but the commands to copy, and no bar is left."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "1"}
    environment.pop("COLUMNS")
    process = subprocess.Popen([sys.executable, "-m", "logitkit", "demo"], stdout=end, stderr=end, env=environment)
    os.close(end)
    written = b""
    try:
        while piece := os.read(main, 4096):
            written += piece
    except OSError:  # the terminal was closed
        pass
    assert process.wait() == 0
    screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode()).replace("\r\n", "\n")
    lines = [line.split("\r")[-1] for line in screen.split("\n")]
    assert [line for line in lines if len(line) > width and not line.startswith("  logitkit ")] == []
    assert len(COST.findall("\n".join(lines))) == len(ACTS)
