"""Records of measurements as JSON lines, so that an interrupted study continues where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from logitkit.errors import FileFormatError, ParameterError


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file.

    Raises:
        FileFormatError: there is no such file, or a line is no JSON object.
    """
    return _records(path, _lines(path))


def append_record(path: Path | None, record: dict[str, Any]) -> None:
    """Append a record to a file, and create the file and its folder if needed; None writes nothing."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace the records of a file; a run that is interrupted leaves the file as it was."""
    written = path.with_name(f"{path.name}.new")
    written.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    written.replace(path)


def resumed_records(path: Path | None, settings: dict[str, Any] | None, owner: str) -> list[dict[str, Any]]:
    """Return the records of a results file, which a run with these settings continues.

    A file that does not exist is a new one without records. A last line that a killed process wrote in part is removed
    from the file, so that its item is measured again.

    Args:
        path: the file; each of its records holds its settings under the key ``settings``. None: no file.
        settings: the settings of this run; None allows any.
        owner: name of the study, for errors.

    Raises:
        FileFormatError: the file has a record of other settings, or a line that is no JSON object.
        ParameterError: records cannot be written there.
    """
    if path is None:
        return []
    _check_writable(path, owner)
    if not path.exists():
        return []
    lines = _lines(path)
    cut = lines.pop() if lines and _is_cut(lines[-1]) else b""
    records = _records(path, lines)
    for number, record in enumerate(records, 1):
        if settings is not None and record.get("settings") != settings:
            raise FileFormatError(
                f"{owner}: {path} must be a file of {settings}, got one of {record.get('settings')} in line {number}; "
                "name another file"
            )
    if cut:  # only now: a file of another study stays as it is
        with path.open("r+b") as file:
            file.truncate(sum(map(len, lines)))
        typer.echo(f"{owner}: {path}: removed line {len(lines) + 1}, which an interrupted run wrote in part", err=True)
    elif lines and not lines[-1].endswith(b"\n"):  # the next record needs a line of its own
        with path.open("ab") as file:
            file.write(b"\n")
    return records


def _check_writable(path: Path, owner: str) -> None:
    """Raise before a study begins if records cannot be appended to a file, which need not exist."""
    place = path
    while not place.exists():
        place = place.parent
    if place == path and place.is_dir():
        return  # the error of reading it says so
    if not os.access(place, os.W_OK) or (place != path and not place.is_dir()):
        found = "a file" if place.is_file() else "a folder that cannot be written"
        raise ParameterError(owner, "out", "a file that can be written", str(path), f"{place} is {found}; name another")


def _lines(path: Path) -> list[bytes]:
    """Return the lines of a file with their ends."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise FileFormatError(f"records: {path} must be a file of JSON lines, got {found}; name another file or folder")
    return path.read_bytes().splitlines(keepends=True)


def _records(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the records of the lines of a file, which errors name."""
    records = []
    for number, line in enumerate(lines, 1):
        record = _json(line)
        if not isinstance(record, dict):
            start = line[:40].decode(errors="replace").rstrip("\r\n")
            raise FileFormatError(
                f"records: line {number} of {path} must be a JSON object, got {start!r}; repair or remove the line"
            )
        records.append(record)
    return records


def _is_cut(line: bytes) -> bool:
    """Return whether a last line is a record without its end."""
    return line.startswith(b'{"') and not line.endswith(b"\n") and _json(line) is None


def _json(line: bytes) -> Any:
    """Return the value of a line, or None if it is no JSON."""
    try:
        return json.loads(line)
    except ValueError:  # of the format or of the encoding
        return None
