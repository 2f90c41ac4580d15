"""A terminal for tests: commands run on a pseudo-terminal in this process, and a small emulator shows the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import threading
import time
import unicodedata
from typing import Any

import pytest

from logitkit.cli import app

_PART = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|([^\x1b])", re.DOTALL)


class Screen:
    r"""The lines that a terminal shows after it received some output: text, line breaks and cursor movements.

    >>> screen = Screen(5)
    >>> screen.feed("one\r\ntwo\rT\x1b[1A!")
    >>> screen.lines
    ['o!e', 'Two']
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.row, self.column = columns, 0, 0
        self.cells: list[dict[int, str]] = [{}]

    @property
    def lines(self) -> list[str]:
        """The lines without the spaces at their ends; empty lines at the end are left out."""
        lines = ["".join(row.get(i, " ") for i in range(max(row, default=-1) + 1)).rstrip() for row in self.cells]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def feed(self, output: str) -> None:
        """Show more output."""
        for arguments, command, sign in (match.groups() for match in _PART.finditer(output)):
            if command:
                self._move(command, int(arguments) if arguments.isdigit() else 0)
            elif sign:
                self._show(sign)

    def _show(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self._to(self.row + 1)
        elif sign == "\b":
            self.column = max(0, self.column - 1)
        elif sign.isprintable():
            width = 2 if unicodedata.east_asian_width(sign) in "WF" else 1
            if self.column + width > self.columns:
                self.column = 0
                self._to(self.row + 1)
            self.cells[self.row][self.column] = sign
            if width == 2:
                self.cells[self.row][self.column + 1] = ""
            self.column += width

    def _move(self, command: str, count: int) -> None:
        if command in "AB":
            self._to(max(0, self.row + (1 if command == "B" else -1) * max(1, count)))
        elif command == "C":
            self.column = min(self.columns - 1, self.column + max(1, count))
        elif command == "D":
            self.column = max(0, self.column - max(1, count))
        elif command == "G":
            self.column = max(0, count - 1)
        elif command == "K":
            kept = {0: lambda i: i < self.column, 1: lambda i: i > self.column, 2: lambda _: False}[count]
            self.cells[self.row] = {i: sign for i, sign in self.cells[self.row].items() if kept(i)}
        elif command == "J":
            self._move("K", count)
            del self.cells[self.row + 1 :]
        else:
            assert command in "mhl", f"the emulator does not know the command {command!r}"

    def _to(self, row: int) -> None:
        self.row = row
        while len(self.cells) <= row:
            self.cells.append({})


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *arguments: object, typed: str = "") -> tuple[int, Any]:
    """Run ``logitkit ARGUMENTS`` with all three streams on a pseudo-terminal; return exit status and `Screen`.

    Args:
        monkeypatch: replaces the streams.
        columns: width of the terminal.
        arguments: of the command.
        typed: what a person types, with line breaks; end of input follows.
    """
    main, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    received: list[bytes] = []
    reader = threading.Thread(target=_receive, args=(main, received))
    reader.start()
    streams = [open(os.dup(slave), mode, buffering=1, encoding="utf-8") for mode in ("r", "w", "w")]  # noqa: PTH123, SIM115
    os.write(main, typed.encode() + b"\x04")
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    try:
        status = app(list(map(str, arguments)), standalone_mode=False) or 0
    finally:
        monkeypatch.undo()
        for stream in streams:
            stream.close()
        os.close(slave)
        reader.join()
        os.close(main)
    screen = Screen(columns)
    screen.feed(b"".join(received).decode())
    return status, screen


def _receive(descriptor: int, received: list[bytes]) -> None:
    """Collect the output until all writers have closed the terminal."""
    while True:
        try:
            received.append(os.read(descriptor, 65536))
        except OSError:  # EIO: closed on the other side
            return


class Session:
    """``logitkit ARGUMENTS`` as a process of its own on a pseudo-terminal, with keys typed while it runs.

    Args:
        columns: width of the terminal.
        arguments: of the command.
    """

    def __init__(self, columns: int, *arguments: object) -> None:
        self.screen, self.output = Screen(columns), ""
        command = [sys.executable, "-m", "logitkit", *map(str, arguments)]
        size = struct.pack("HHHH", 40, columns, 0, 0)
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)  # before the command can ask for it
            # Not the variables of the process: readline puts a size into these, which `os.environ` does not show.
            variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            os.execve(command[0], command, variables | {"TERM": "xterm-256color"})

    def type(self, keys: str) -> None:
        r"""Type keys; ``\x03`` is Ctrl-C and ``\x04`` is Ctrl-D.

        A signal that arrives while `input` has shown its prompt and does not wait yet is lost, so this waits a little.
        """
        time.sleep(0.5)
        os.write(self.terminal, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        """Read until the output since the last wait matches; return this output."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.output):
            assert time.monotonic() < deadline, f"{pattern!r} did not appear: {self.output!r}"
            if select.select([self.terminal], [], [], 1.0)[0]:
                self._read()
        output, self.output = self.output, ""
        return output

    def end(self) -> int:
        """Read to the end, and return the exit status."""
        try:
            while True:
                self._read()
        except OSError:  # EIO: the process has ended
            os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def _read(self) -> None:
        piece = os.read(self.terminal, 65536).decode(errors="replace")
        self.output += piece
        self.screen.feed(piece)
