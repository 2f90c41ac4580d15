"""Atomic replacement of files, and JSON from files of unknown origin.

Readers of a replaced file see the old content or the new content, never a part of it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an exception, the temporary file replaces ``path``.

    The temporary file lies in the folder of ``path``, so that the replacement is one rename within a file system.
    Its content is flushed to the disk before the rename. Missing folders are created. The permission bits are those
    of a newly created file: 0666 without the bits of the umask.

    Args:
        path: the file to create or to replace. A symbolic link at ``path`` is itself replaced.

    Yields:
        Path of an empty file with a random name and the suffix of ``path``, to be written in the block.

    Raises:
        OSError: the folder cannot be created or written. An exception of the block passes through unchanged. In both
            cases ``path`` keeps its old content and the temporary file is removed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replace_file(folder / "report.txt") as temporary:
    ...     _ = temporary.write_text("complete")
    >>> [(file.name, file.read_text()) for file in folder.iterdir()]
    [('report.txt', 'complete')]
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    # os.open applies the umask itself; tempfile would create the file with mode 0600.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)  # a writer may replace the temporary file, as safetensors does with mode 0600
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _flush(path.parent, os.O_RDONLY)  # makes the rename itself survive a power failure


def _flush(path: Path, mode: int) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_json(content: str | bytes) -> Any:
    """Return the value of JSON text; every fault is a ValueError.

    Args:
        content: JSON as text, or as bytes in UTF-8.

    Raises:
        ValueError: the content is no JSON or not UTF-8, is nested too deeply, or holds a number of too many digits.

    >>> parse_json(b'{"key": 1}')
    {'key': 1}
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
