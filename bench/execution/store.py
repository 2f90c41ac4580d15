"""The store of a run's results: a folder with one line of JSON per record, and manifests.

Records are only ever appended. A last line that a crash left incomplete is removed when the store is opened for
writing. One process writes at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from logitkit.bench.config.loading import chain_revisions
from logitkit.bench.config.run import Run
from logitkit.bench.execution.registration import register
from logitkit.errors import FileFormatError, ModeError
from logitkit.files import parse_json, read_bytes, replace_file
from logitkit.registry.chain import Chain

Record = dict[str, Any]


class Store:
    """A folder of results. Use it as a context manager to write.

    Args:
        folder: the folder; opening the store for writing creates it.

    Attributes:
        records: the records by key, in the order in which they were written.

    Raises:
        FileFormatError: a line is not a record; an incomplete last line is no error.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Store(folder) as store:
        ...     store.add([{"key": "a", "text": "first"}, {"key": "a", "text": "ignored"}])
        >>> Store(folder).records
        {'a': {'key': 'a', 'text': 'first'}}
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "results.jsonl"
        self.records = _read(self.file)
        self._lock = FileLock(folder / ".lock", timeout=0)
        self._out: Any = None

    def __enter__(self) -> Store:
        """Open the store for writing.

        Raises:
            ModeError: another process has the store open for writing.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ModeError(
                f"bench: one process at a time may write to {self.folder}; wait for the other, or choose another --out"
            ) from None
        _cut_incomplete_line(self.file)
        self.records = _read(self.file)
        self._out = self.file.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._out.close()  # writes the rest of the buffer, which fails on a full disk
        finally:
            self._lock.release()

    def add(self, records: Iterable[Record]) -> None:
        """Append the records whose key is new, and hand them to the operating system before returning."""
        for record in records:
            if record["key"] not in self.records:
                self.records[record["key"]] = record
                self._out.write(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")
        self._out.flush()

    def begin(self, run: Run, environment: Record, source: Path | None = None) -> None:
        """Write the manifest of a run if there is none, and append a session to ``sessions.jsonl``.

        The first run of a folder is registered: see `logitkit.bench.execution.registration`.

        Both hold the revisions of the processors of each chain. The manifest holds those of the first session.

        Args:
            run: the run that is about to be carried out.
            environment: versions, hardware and time, from `logitkit.bench.execution.manifest.environment`.
            source: the run file; None for a run that options describe or change.
        """
        register(self.folder, run, source, len(self.records))
        path = self.manifest(run)
        session = {**environment, "processor_revisions": _revisions(run)}
        if not path.exists():
            data = run.model_dump(mode="json", exclude={"folder"})
            manifest = {"hash": run.hash, "run": data, **session}
            with replace_file(path) as temporary:
                temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _cut_incomplete_line(self.folder / "sessions.jsonl")
        with (self.folder / "sessions.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({"run": run.hash, **session}, ensure_ascii=False) + "\n")

    def manifest(self, run: Run) -> Path:
        """Return the path of a run's manifest."""
        return self.folder / f"manifest-{run.hash}.json"

    def sessions(self, run: Run) -> list[Record]:
        """Return the sessions in which records of a run were written, oldest first."""
        path = self.folder / "sessions.jsonl"
        lines = _content(path).split(b"\n")
        return [session for line in lines if (session := _record(line)) and session.get("run") == run.hash]


def _revisions(run: Run) -> dict[str, dict[str, int]]:
    """Return the revisions of the processors of each chain of a run."""
    return {name: chain_revisions(Chain(entry.chain)) for name, entry in run.chains.items()}


def _read(path: Path) -> dict[str, Record]:
    """Return the records of a file by key; the first record of a key counts.

    Bytes after the last line break are an incomplete record and ignored: a crash may have cut a character in two.
    """
    records: dict[str, Record] = {}
    *lines, _ = _content(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None or not isinstance(record.get("key"), str):
            raise FileFormatError(
                f"{path}:{number}: must be a record of logitkit bench, got {line[:60].decode(errors='replace')!r}; "
                "remove the line, or choose another --out"
            )
        records.setdefault(record["key"], record)
    return records


def _content(path: Path) -> bytes:
    """Return the content of a file of the store; nothing if there is no such file.

    Raises:
        FileFormatError: a folder, a pipe or another file that cannot be read.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise FileFormatError(
            f"bench: {path} must be a file that can be read, got: {error.strerror}; choose another --out"
        ) from error


def _record(line: bytes) -> Record | None:
    """Return a line as a record; None if it is not a JSON object in UTF-8.

    JSON that is nested too deeply, and numbers with too many digits, are no records.
    """
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _cut_incomplete_line(path: Path) -> None:
    """Remove the text after the last line break of a file.

    Raises:
        FileFormatError: the text cannot be the beginning of a record.
    """
    content = _content(path)
    tail = content[content.rfind(b"\n") + 1 :]
    record = _record(tail)
    begins = tail.startswith(b'{"') or b'{"'.startswith(tail) or not tail.strip(b"\0")  # zeros: a crash of the system
    if not begins or (record is not None and not record.keys() & {"key", "run"}):
        raise FileFormatError(
            f"{path}: must hold records of logitkit bench, got {tail[:60].decode(errors='replace')!r}; "
            "choose another --out"
        )
    if not tail:
        return
    with path.open("rb+") as file:
        file.truncate(len(content) - len(tail))
