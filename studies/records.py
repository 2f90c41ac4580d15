"""Records of measurements as JSON lines, so that an interrupted study continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from logitkit.errors import FileFormatError


def read_records(path: Path | None) -> list[dict[str, Any]]:
    """Return the records of a file; an empty list if there is no file."""
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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


def resumed_records(path: Path | None, settings: dict[str, Any], owner: str) -> list[dict[str, Any]]:
    """Return the records of a file that was written with these settings.

    Args:
        path: the file; its records hold their settings under the key ``settings``.
        settings: the settings of this run.
        owner: name of the study, for the error.

    Raises:
        FileFormatError: the file was written with other settings.
    """
    records = read_records(path)
    if records and records[0].get("settings") != settings:
        raise FileFormatError(
            f"{owner}: {path} must be a file of {settings}, got one of {records[0].get('settings')}; name another file"
        )
    return records
