"""One rule of exit statuses for all commands: 0 done, 1 failed, 2 wrong command line, 130 interrupted."""

from __future__ import annotations

import errno
import shlex
from typing import Any

import pytest
import typer

import logitkit
from command_line import logitkit_command
from logitkit import errors
from logitkit.cli import app

GROUP: Any = typer.main.get_command(app)
COMMANDS = {
    "demo": "",
    "run": "hello",
    "inspect": "hello",
    "list": "",
    "show": "uscd",
    "check": "uscd",
    "doctor": "",
    "new-plugin": "quiet",
    "models list": "",
    "models pull": "smollm2-135m",
    "models path": "smollm2-135m",
    "bench run": "run.yaml",
    "bench report": "run.yaml",
    "bench choose": "run.yaml final.yaml",
    "bench power": "--discordant 0.2",
    "bench tasks": "",
    "bench speed": "",
    "train-ngram": "a.txt --tokenizer t -o t.safetensors",
    "label-divergence": "a.txt b.jsonl --small a --large b",
    "train-attribute": "a.jsonl head --model a",
    "train-router": "a.jsonl head --small a --large b",
    "train-adadec": "a.jsonl threshold.json",
    "membership": "passages.jsonl",
    "drift": "chat.jsonl --goal x",
    "compare": "a b text",
    "bits-per-byte": "book.txt --model a",
    "tokenizer report": "smollm2-135m",
    "schema": "",
    "serve": "",
    "lm-eval": "",
}
TRAIN = ["train-ngram", "a.txt", "--tokenizer", "t", "-o", "t.safetensors"]
RAISED = [
    (errors.ParameterError("run", "--seed", "a number", "x"), 2),
    (errors.UnknownNameError("model", "x", ["y"]), 2),
    (errors.ChainError("chain: must be text"), 2),
    (errors.RunError("run.yaml", ["one"]), 2),
    (errors.DownloadError("no source"), 1),
    (errors.DataError("no data"), 1),
    (errors.MissingPackageError("bench", "scipy", "bench"), 1),
    (errors.PluginError("broken"), 1),
    (errors.ScoresError("nan"), 1),
    (OSError(errno.ENOSPC, "No space left on device"), 1),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere"), 2),
    (PermissionError(errno.EACCES, "Permission denied", "/closed"), 1),
    (KeyboardInterrupt(), 130),
]


def names(command: Any = GROUP, path: str = "") -> list[str]:
    """Return the words that call each command."""
    children = getattr(command, "commands", None)
    if children is None:
        return [path.strip()]
    return [name for child in children for name in names(children[child], f"{path} {child}")]


def test_every_command_is_tried() -> None:
    """The table above knows all commands."""
    assert set(COMMANDS) == set(names())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_status_depends_on_the_error_alone(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever command it is: the same error ends it with the same status and one message."""
    for error, status in RAISED:

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(typer.core.TyperCommand, "invoke", fail)
            result = logitkit_command(*command.split(), *shlex.split(COMMANDS[command]))
        assert result.exit_code == status, (error, result.output)
        assert "Traceback" not in result.output and ("interrupted" if status == 130 else "error: ") in result.stderr


@pytest.mark.parametrize("command", [*sorted(set(COMMANDS) - {"lm-eval"}), "models", "bench", ""])
def test_an_unknown_option_is_usage(command: str) -> None:
    """Every command and group refuses an unknown option with status 2."""
    assert logitkit_command(*command.split(), "--no-such-option").exit_code == 2


@pytest.mark.parametrize("command", ["runn", "models lst", "bench speeed"])
def test_an_unknown_command_is_usage(command: str) -> None:
    """The same for a misspelled command."""
    assert logitkit_command(*command.split()).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "USCD"], "did you mean 'uscd'?"),
        (["show", "Top-P"], "did you mean 'top_p'?"),
        (["run", "a", "--chain", "CFG(1.5)"], "did you mean 'cfg'?"),
        (["run", "a", "--chain", "uscd(Rho=1.0)"], "did you mean 'rho'?"),
        (["run", "a", "--chain", "uscd(form='Diff')"], "did you mean 'diff'?"),
        (["run", "a", "--model", "SmolLM2-135M"], "did you mean 'smollm2-135m'?"),
        (["models", "path", "SmolLM2-135M"], "did you mean 'smollm2-135m'?"),
        (["bench", "--task", "GSM8K"], "did you mean 'gsm8k'?"),
        (["bench", "--task", "gsm8k", "--engine", "Ray"], "did you mean 'ray'?"),
        (["bench", "speed", "--only", "USCD"], "did you mean 'uscd'?"),
        (["bench", "speed", "--dtype", "Float32"], "did you mean 'float32'?"),
        (["check", "TOP_K"], "did you mean 'top_k'?"),
        ([*TRAIN, "--smoothing", "Kneser-Ney"], "did you mean 'kneser-ney'?"),
        ([*TRAIN, "--smoothing", "knesser-ney"], "did you mean 'kneser-ney'?"),
    ],
)
def test_a_name_in_other_case_is_suggested(arguments: list[str], message: str) -> None:
    """Names, parameters and choices: the message shows the name that was meant, and the status is 2."""
    result = logitkit_command(*arguments)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output


def test_success_is_zero() -> None:
    """A command that did what was asked."""
    assert logitkit_command("show", logitkit.names()[0]).exit_code == 0
