"""Runs the command line in the process of the tests."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from logitkit.cli import app


def logitkit_command(*arguments: object, **options: Any) -> Any:
    """Run ``logitkit ARGUMENTS`` and return click's result: exit code, standard output and standard error."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
