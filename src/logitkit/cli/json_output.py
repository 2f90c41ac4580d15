"""Printing JSON that holds nothing else: what other code prints goes to the standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

import typer

_kept: list[int] = []  # the file descriptor of the standard output, once `divert` has run in this process


def divert(requested: bool) -> bool:
    """Send everything that is written to the standard output to the standard error, except by `print_json`.

    The file descriptor itself is diverted, for the rest of the process: a plugin, a library in C, a child process, a
    thread or a function that runs at exit may write to it. A standard output that Python replaced is left as it is.

    Args:
        requested: whether the option ``--json`` was given.

    Returns:
        ``requested``.
    """
    output: Any = sys.__stdout__
    errors: Any = sys.__stderr__
    if requested and None not in (output, errors) and sys.stdout is output:
        with contextlib.suppress(OSError, ValueError):  # without open descriptors there is nothing to divert
            output.flush()
            kept = os.dup(output.fileno())
            os.dup2(errors.fileno(), output.fileno())
            _kept.append(kept)
    return requested


def print_json(data: Any, *, indent: int = 2) -> None:
    """Print plain data to the standard output of the command, also after `divert`."""
    text = json.dumps(data, indent=indent)
    if not _kept:
        typer.echo(text)
        return
    with open(_kept.pop(), "w", encoding="utf-8") as output:  # noqa: PTH123 - a descriptor, not a path
        output.write(text + "\n")
