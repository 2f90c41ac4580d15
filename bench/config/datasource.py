"""Where a task's data come from: a file that the run names, the folder LOGITKIT_DATA, or the hub."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from logitkit.errors import DataError, FileFormatError
from logitkit.registry.task_spec import TaskSpec

VARIABLE = "LOGITKIT_DATA"


def rows(spec: TaskSpec, given: str | None, folder: str, *, encoding: str | None = None) -> list[dict[str, Any]]:
    """The data of a task as a list of mappings; empty for a task that brings its own.

    Args:
        given: a file that the run names; it goes before every other place.
        folder: where a relative name starts.
        encoding: of the file; by default what the task says of its own, and UTF-8 for one that is given.

    Raises:
        DataError: it is in none of the places.
        FileFormatError: a file that is no JSON, or no list of objects.
    """
    if not spec.data and given is None:
        return []
    looked: list[str] = []
    path = _found(given or spec.data, folder, looked)
    if path is not None:
        return read(path, encoding=encoding or (spec.encoding if given is None else "utf-8"))
    if given is None and spec.hub:
        try:
            return _from_hub(spec.hub)
        except Exception as error:  # whatever the hub's client says, it is a place that has no data
            looked.append(f"the hub, {spec.hub}: {_short(error)}")
    raise DataError(f"task {spec.name}: no data; looked at {'; '.join(looked)}; {_how(spec, given)}")


def text(name: str, folder: str, *, encoding: str = "utf-8") -> str:
    """A text file as it stands.

    Raises:
        DataError: it is neither beside the run file nor in the data folder.
        FileFormatError: it is in another encoding.
    """
    looked: list[str] = []
    path = _found(name, folder, looked)
    if path is None:
        raise DataError(f"no such file: {name}; looked at {'; '.join(looked)}; {_set(name)}")
    try:
        return path.read_text(encoding=encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise FileFormatError(f"{path} must be text in {encoding}, got: {error}; say its encoding") from error


def file_hash(name: str, folder: str) -> str:
    """16 hex digits of a file's content; it is found as `text` finds it.

    Raises:
        DataError: there is no such file.
    """
    looked: list[str] = []
    path = _found(name, folder, looked)
    if path is None:
        raise DataError(f"no such file: {name}; looked at {'; '.join(looked)}; {_set(name)}")
    return _content_hash(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _content_hash(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read(path: Path, *, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """The rows of a ``.jsonl``, ``.json`` or ``.txt`` file, ``.gz`` or not; of a text each paragraph is one."""
    packed = path.suffix == ".gz"
    kind = path.with_suffix("").suffix if packed else path.suffix
    try:
        raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        content = raw.decode(encoding).removeprefix("\ufeff")
        if kind == ".txt":
            found: Any = [
                {"text": part.strip()} for part in content.replace("\r\n", "\n").split("\n\n") if part.strip()
            ]
        elif kind == ".jsonl":
            found = [json.loads(line) for line in content.split("\n") if line.strip()]
        else:
            found = json.loads(content)
    except (OSError, EOFError, LookupError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileFormatError(
            f"data: {path} must be JSON lines, JSON or text in {encoding}, got: {error}; say the task's encoding"
        ) from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found) or not found:
        raise FileFormatError(f"data: {path} must hold a list of objects, got {type(found).__name__}")
    return found


def _found(name: str, folder: str, looked: list[str]) -> Path | None:
    """The file of this name beside the run file or in the data folder; where it was looked for is added up."""
    own = Path(folder) / Path(name).expanduser()
    places = [own]
    data = os.environ.get(VARIABLE)
    if data and not Path(name).is_absolute():
        places.append(Path(data).expanduser() / name)
    for place in places:
        if place.is_file():
            return place
        looked.append(str(place))
    if not data:
        looked.append(f"{VARIABLE} (not set)")
    return None


def _from_hub(hub: str) -> list[dict[str, Any]]:
    """Rows of a data set on the hub."""
    import datasets

    name, configuration, split = [*hub.split(":"), "", ""][:3]
    loaded = datasets.load_dataset(name, configuration or None, split=split or "test")
    return [dict(row) for row in loaded]


def _how(spec: TaskSpec, given: str | None) -> str:
    """How to get the data."""
    if given is not None:
        return "correct the task's data"
    return _set(spec.data) + (f", or pip install 'logitkit[hub]' and be online for {spec.hub}" if spec.hub else "")


def _set(name: str) -> str:
    return f"set {VARIABLE} to a folder that holds {Path(name).name}"


def _short(error: Exception) -> str:
    """The first line of an error."""
    if isinstance(error, ImportError):
        return "the package datasets is not installed"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
