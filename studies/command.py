"""The command line of a study: an error of logitkit or of the command line is one line, with exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

from logitkit.cli.interrupts import STATUS
from logitkit.cli.usage_errors import HELP_IS_SHOWN, UsageError, usage_error_text
from logitkit.errors import LogitkitError

# Errors of the system about a file that the command names.
OF_A_FILE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def study_name() -> str:
    """Return the name of the study that runs, as errors show it."""
    return Path(sys.argv[0]).stem


def run(main: Callable[..., Any] | typer.Typer) -> NoReturn:
    """Run a study and end the program.

    Args:
        main: the command, or several commands.

    Raises:
        SystemExit: always; with status 2 after an error that one line on standard error explains, and with status 130
            after Ctrl-C. Any other exception keeps its traceback.
    """
    app = main if isinstance(main, typer.Typer) else typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    if app is not main:
        app.command()(main)
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        if type(error).__name__ == HELP_IS_SHOWN:
            typer.echo(str(error), err=True)
            sys.exit(2)
        _fail(_usage_text(error))
    except LogitkitError as error:
        _fail(str(error))
    except OF_A_FILE as error:
        if error.filename is None:
            raise
        _fail(f"{study_name()}: {error.filename} must be a file or folder that can be used, got: {error.strerror}")
    except typer.Abort:  # Ctrl-C in older typer; newer typer returns the status
        status = STATUS
    sys.exit(status)


def _usage_text(error: Any) -> str:
    """Return a usage error as the command `logitkit` words it, with the name of the study in place of `logitkit`."""
    name = study_name()
    text = usage_error_text(error).replace("; see logitkit", f"; see python -m studies.{name}")
    return f"{name}: {text.removeprefix('logitkit: ')}"


def _fail(text: str) -> NoReturn:
    """Print an error as one line, and end the program."""
    typer.secho("error: ", fg=typer.colors.RED, err=True, nl=False)
    typer.echo(text, err=True)
    sys.exit(2)
