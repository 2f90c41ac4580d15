"""Data of a task: from a file that the run names, from the folder LOGITKIT_DATA, or from the hub."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

from logitkit.errors import DataError, FileFormatError
from logitkit.files import is_file, parse_json, read_bytes
from logitkit.registry.task_spec import TaskSpec

VARIABLE = "LOGITKIT_DATA"
WITHOUT_DATA = ("sentences", "cut_sentences")  # tasks to begin with


def rows(spec: TaskSpec, data: str | None, folder: str, *, encoding: str | None = None) -> list[dict[str, Any]]:
    """Return the data rows of a task; an empty list for a task without a data file.

    Args:
        spec: the task.
        data: a file that the run names; it takes precedence over the task's own file and the hub.
        folder: where a relative name starts.
        encoding: encoding of the file; default: UTF-8 for a file of the run, the Spec's encoding otherwise.

    Raises:
        DataError: no place holds the data.
        FileFormatError: the file is not JSON, not text in the encoding, or not a list of objects.
    """
    if not spec.data and data is None:
        return []
    searched: list[str] = []
    path = _find(data or spec.data, folder, searched)
    if path is not None:
        return read(path, encoding=encoding or (spec.encoding if data is None else "utf-8"))
    if data is None and spec.hub:
        try:
            return _from_hub(spec.hub)
        except Exception as error:  # the hub's client raises errors of many kinds; each means: no data there
            searched.append(f"the hub, {spec.hub}: {_first_line(error)}")
    raise DataError(f"task {spec.name}: no data; looked at {'; '.join(searched)}; {_remedy(spec, data)}")


def text(name: str, folder: str, *, encoding: str = "utf-8") -> str:
    """Return the content of a text file beside the run file or in the data folder.

    Raises:
        DataError: the file is in neither place.
        FileFormatError: the file is not text in this encoding.
    """
    path = _require(name, folder)
    try:
        return path.read_text(encoding=encoding)
    except (OSError, ValueError, LookupError) as error:
        raise FileFormatError(f"{path} must be text in {encoding}, got: {error}; set its encoding") from error


def file_hash(name: str, folder: str) -> str:
    """Return 16 hex digits of a file's content; the file is searched as by `text`.

    Raises:
        DataError: the file is in neither place.
    """
    path = _require(name, folder)
    return _content_hash(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _content_hash(path: Path, changed: int) -> str:
    """Return 16 hex digits of a file's content; ``changed``, its time of change, is part of the cache's key."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise FileFormatError(f"{path} must be a file that can be read, got: {error.strerror}") from error


def read(path: Path, *, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """Read the rows of a ``.jsonl``, ``.json`` or ``.txt`` file, compressed (``.gz``) or not.

    Each paragraph of a text file is one row ``{"text": paragraph}``.

    Raises:
        FileFormatError: the file is not in its format, or not a list of objects.
    """
    compressed = path.suffix == ".gz"
    kind = path.with_suffix("").suffix if compressed else path.suffix
    try:
        content = read_bytes(path)
        raw = gzip.decompress(content) if compressed else content
        text = raw.decode(encoding).removeprefix("\ufeff")
        if kind == ".txt":
            paragraphs = text.replace("\r\n", "\n").split("\n\n")
            data: Any = [{"text": part.strip()} for part in paragraphs if part.strip()]
        elif kind == ".jsonl":
            data = [parse_json(line) for line in text.split("\n") if line.strip()]
        else:
            data = parse_json(text)
    except (OSError, EOFError, zlib.error, LookupError, ValueError) as error:
        raise FileFormatError(
            f"data: {path} must be JSON lines, JSON or text in {encoding}, got: {error}; set the task's encoding"
        ) from error
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data) or not data:
        raise FileFormatError(f"data: {path} must hold a list of objects, got {type(data).__name__}")
    return data


def _find(name: str, folder: str, searched: list[str]) -> Path | None:
    """Return the file of this name beside the run file or in the data folder; append failed places to ``searched``."""
    places = [Path(folder) / Path(name).expanduser()]
    data = os.environ.get(VARIABLE)
    if data and not Path(name).is_absolute():
        places.append(Path(data).expanduser() / name)
    for place in places:
        if is_file(place):
            return place
        searched.append(str(place))
    if not data:
        searched.append(f"{VARIABLE} (not set)")
    return None


def _require(name: str, folder: str) -> Path:
    """Return the file that `_find` finds.

    Raises:
        DataError: there is no such file.
    """
    searched: list[str] = []
    path = _find(name, folder, searched)
    if path is None:
        raise DataError(f"no such file: {name}; looked at {'; '.join(searched)}; {_name_folder(name)}")
    return path


def _from_hub(hub: str) -> list[dict[str, Any]]:
    """Return the rows of a data set on the hub, named ``owner/name[:configuration[:split]]``."""
    import datasets

    name, configuration, split = [*hub.split(":"), "", ""][:3]
    loaded = datasets.load_dataset(name, configuration or None, split=split or "test")
    return [dict(row) for row in loaded]


def _remedy(spec: TaskSpec, data: str | None) -> str:
    """Return an instruction for providing the data of a task."""
    if data is not None:
        return "correct the task's data"
    online = f", or pip install 'logitkit[hub]' and be online for {spec.hub}" if spec.hub else ""
    return f"{_name_folder(spec.data)}{online}; the tasks {' and '.join(WITHOUT_DATA)} need no data"


def _name_folder(name: str) -> str:
    """Return an instruction for naming the data folder."""
    return f"pass --data FOLDER, or set {VARIABLE}, to name a folder that holds {Path(name).name}"


def _first_line(error: Exception) -> str:
    """Return the type and the first line of an error."""
    if isinstance(error, ImportError):
        return "the package datasets is not installed"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
