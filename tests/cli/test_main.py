"""The assembled command line: help, version, and errors."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import logitkit
from command_line import logitkit_command
from logitkit.cli import app
from terminal import on_terminal

GROUP: Any = typer.main.get_command(app)


def commands(command: Any = GROUP, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def examples() -> list[str]:
    """Return the examples of all help texts."""
    lines = [line for _, command in commands() for line in (command.epilog or "").split("\n\n")]
    # A pipe into logitkit counts as the command behind the pipe.
    return sorted({line[line.index("logitkit ") :] for line in lines if "logitkit " in line})


@pytest.mark.parametrize("path", [path for path, _ in commands() if path != ("lm-eval",)], ids=" ".join)
def test_every_help_text_is_shown(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """``--help`` ends with exit status 0 and fits a terminal of 80 and of 60 columns, with no option cut."""
    command = GROUP
    for name in path:
        command = command.commands[name]
    for columns in (80, 60):
        status, screen = on_terminal(monkeypatch, columns, *path, "--help")
        text = "\n".join(screen.lines)
        assert status == 0 and "Usage:" in text and max(map(len, screen.lines)) <= columns and "…" not in text
        assert {option for parameter in command.params for option in parameter.opts if option[0] == "-"} <= set(
            re.findall(r"--?[a-z-]+", text)
        )


def test_every_option_has_a_help_text() -> None:
    """No parameter of a command is listed without an explanation."""
    parameters = [(path, parameter) for path, command in commands() for parameter in command.params]
    assert [(path, parameter.name) for path, parameter in parameters if not parameter.help] == []


@pytest.mark.parametrize("example", examples())
def test_every_example_of_a_help_text_parses(example: str) -> None:
    """The command of an example exists and accepts the arguments of the example."""
    program, *arguments = shlex.split(example)
    assert program == "logitkit"
    command, context = GROUP, None
    while hasattr(command, "commands"):
        context = command.make_context(program, arguments, parent=context)
        # click keeps the words behind a group's own options in this attribute and in no public one.
        program, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(program, arguments, parent=context)


def test_version() -> None:
    """``--version`` prints the name and the version of logitkit."""
    result = logitkit_command("--version")
    assert (result.exit_code, result.stdout) == (0, f"logitkit {logitkit.__version__}\n")


def test_help_imports_neither_torch_nor_transformers() -> None:
    """The command line starts without the slow imports."""
    code = (
        "import sys; from typer.testing import CliRunner; from logitkit.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "usdc"], "no processor named 'usdc'; did you mean 'uscd'?"),
        (["run", "a", "--chain", "uscd(rho="], "never closed"),
        (["run", "a", "--chain", "uscd(rho=-1)"], "uscd: rho must be a finite number >= 0, got -1"),
        (["run", "a", "--file", "b"], "the prompt must be given once"),
        (["run", "--file", "/nowhere"], "--file must be a file that exists"),
        (["run", "a", "--chain", "/nowhere.yaml"], "--chain must be the text of a chain or a file that can be read"),
        (["run", "a", "--model", "no-such-model"], "no model named 'no-such-model'"),
        (["check", "transformers:Nothing"], "must be importable"),
    ],
)
def test_errors_are_printed_without_a_traceback(arguments: list[str], message: str) -> None:
    """An error of logitkit ends the command with exit status 2 and one message."""
    result = logitkit_command(*arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["run", "--file"], ["label-divergence", "--small", "a", "--large", "b"]])
def test_a_text_file_of_another_encoding_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """The error says where the text stops being UTF-8."""
    (tmp_path / "a.txt").write_bytes("caf\u00e9".encode("cp1252") + b" au lait")
    rest = [str(tmp_path / "labels.jsonl")] if arguments[0] != "run" else []
    result = logitkit_command(*arguments, str(tmp_path / "a.txt"), *rest)
    assert result.exit_code == 2 and "must be UTF-8 text (invalid continuation byte at byte 3)" in result.output
