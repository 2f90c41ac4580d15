"""Where results are kept: a folder with a line of JSON for each sample, and what was run.

Results are only ever added. A line that a crash tore is cut off when the folder is opened again. One process writes
at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from logitkit.bench.config.run import Run
from logitkit.errors import FileFormatError, ModeError

Record = dict[str, Any]


class Store:
    """A folder of results.

    Args:
        folder: made when it is not there.

    Attributes:
        records: by key, as they were written.

    Raises:
        FileFormatError: a line that is no record, other than a torn last one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "results.jsonl"
        self.records = _read(self.file)
        self._lock = FileLock(folder / ".lock", timeout=0)
        self._out: Any = None

    def __enter__(self) -> Store:
        """Open for writing.

        Raises:
            ModeError: another process writes here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ModeError(
                f"bench: one process at a time may write to {self.folder}; wait for the other, or choose another --out"
            ) from None
        _cut_torn_line(self.file)
        self.records = _read(self.file)
        self._out = self.file.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._out.close()
        self._lock.release()

    def add(self, records: Iterable[Record]) -> None:
        """Write those whose key is new; each is on its way to the disk when this returns."""
        for record in records:
            if record["key"] not in self.records:
                self.records[record["key"]] = record
                self._out.write(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")
        self._out.flush()

    def begin(self, run: Run, about: Record) -> None:
        """Keep the manifest of a run, once; and note that a session began.

        Args:
            about: versions, hardware and time, as `logitkit.bench.execution.manifest.environment` gives them.
        """
        path = self.manifest(run)
        if not path.exists():
            told = {"hash": run.hash, "run": run.model_dump(mode="json", exclude={"folder"}), **about}
            _write_whole(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        with (self.folder / "sessions.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({"run": run.hash, **about}, ensure_ascii=False) + "\n")

    def manifest(self, run: Run) -> Path:
        """Where the manifest of a run is kept."""
        return self.folder / f"manifest-{run.hash}.json"

    def sessions(self, run: Run) -> list[Record]:
        """The sessions in which a run was written, oldest first."""
        path = self.folder / "sessions.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        return [told for line in lines if (told := _whole(line)) and told["run"] == run.hash]


def _read(path: Path) -> dict[str, Record]:
    """Records by key; the first of a key stands. What stands behind the last end of a line is torn."""
    found: dict[str, Record] = {}
    *lines, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    for number, line in enumerate(lines, 1):
        record = _whole(line)
        if record is None or "key" not in record:
            raise FileFormatError(f"{path}:{number}: must be a record of logitkit bench, got {line[:60]!r}")
        found.setdefault(record["key"], record)
    return found


def _whole(line: str) -> Record | None:
    """A line as a record; None where it is none."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _cut_torn_line(path: Path) -> None:
    """Take off what stands behind the last end of a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
