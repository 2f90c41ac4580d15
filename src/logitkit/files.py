"""Files: the cache folder, reading of files of unknown origin, atomic replacement, and JSON.

Readers of a replaced file see the old content or the new content, never a part of it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import platformdirs

_written: ContextVar[list[Path] | None] = ContextVar("_written", default=None)  # see `written_files`
LONGEST_TEXT = 1 << 26  # bytes of a chain, a run, a manifest or a prompt; a larger file is a mistake


def cache_folder(cache: str | Path | None = None) -> Path:
    """Return the folder of the cache.

    Args:
        cache: a folder to use instead of the default.

    Returns:
        ``cache`` itself, else the folder that the environment variable ``LOGITKIT_CACHE`` names, else the cache folder
        of the user on this platform. The folder need not exist.

    >>> cache_folder("/data/cache").as_posix()
    '/data/cache'
    """
    return Path(cache or os.environ.get("LOGITKIT_CACHE") or platformdirs.user_cache_dir("logitkit")).expanduser()


@contextmanager
def written_files() -> Iterator[list[Path]]:
    """Yield a list to which `replace_file` adds each file that it completes in this thread while the body runs.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with written_files() as written, replace_file(folder / "report.txt") as temporary:
    ...     _ = temporary.write_text("complete")
    >>> [path.name for path in written]
    ['report.txt']
    """
    written: list[Path] = []
    token = _written.set(written)
    try:
        yield written
    finally:
        _written.reset(token)


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
        if (written := _written.get()) is not None:
            written.append(path)
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


def check_readable(path: str | Path, *, most: int | None = None) -> None:
    """Refuse anything but a regular file, so that reading neither waits for a pipe nor reads a device without end.

    Args:
        path: the file; a symbolic link is followed.
        most: largest size in bytes; None: any size.

    Raises:
        OSError: the file is missing, a folder, a pipe, a device or a socket, or too large.

    >>> check_readable("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 22] not a regular file: '/dev/zero'
    """
    try:
        status = Path(path).stat()
    except ValueError as error:  # a null character, or a character that no file name holds
        raise OSError(errno.EINVAL, f"not a file name ({error})", str(path)) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder and not a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))


def is_file(path: str | Path) -> bool:
    """Return whether a regular file is at a path; False also where the system cannot tell, as in a closed folder.

    >>> is_file("x" * 1000), is_file("/dev/null")
    (False, False)
    """
    try:
        return Path(path).is_file()
    except OSError:
        return False


def is_folder(path: str | Path) -> bool:
    """Return whether a folder is at a path; False also where the system cannot tell.

    >>> is_folder("x" * 1000), is_folder("/dev")
    (False, True)
    """
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def read_bytes(path: str | Path, *, most: int | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        path, most: as in `check_readable`.

    Raises:
        OSError: as in `check_readable`, or the file cannot be read.

    >>> read_bytes("/dev/null")
    Traceback (most recent call last):
    OSError: [Errno 22] not a regular file: '/dev/null'
    """
    check_readable(path, most=most)
    return Path(path).read_bytes()


def read_text(path: str | Path, *, most: int | None = LONGEST_TEXT) -> str:
    """Return the content of a regular file in UTF-8; line ends become line feeds.

    Args:
        path, most: as in `check_readable`; by default at most 64 MiB.

    Raises:
        OSError: as in `read_bytes`.
        UnicodeDecodeError: the content is not UTF-8.

    >>> read_text("/dev")
    Traceback (most recent call last):
    IsADirectoryError: [Errno 21] a folder and not a file: '/dev'
    """
    check_readable(path, most=most)
    return Path(path).read_text(encoding="utf-8")


def save_tensors(tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as a safetensors file; a fault of the system is an OSError, as it is for every other file.

    Args:
        tensors: contiguous tensors on the CPU by name.
        path: the file.
        metadata: texts for the header of the file.

    Raises:
        OSError: the file cannot be written, for instance on a full disk.

    >>> import torch
    >>> save_tensors({"a": torch.ones(1)}, Path("/dev/null/file"))
    Traceback (most recent call last):
    NotADirectoryError: [Errno 20] Not a directory: '/dev/null/file'
    """
    from safetensors.torch import save_file

    with system_errors(path):
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))


@contextmanager
def system_errors(path: str | Path) -> Iterator[None]:
    """Raise the errors of the system that safetensors meets in the block as OSError, with their number.

    Args:
        path: named in the error.

    >>> from safetensors import SafetensorError
    >>> with system_errors("table"):
    ...     raise SafetensorError("I/O error: No space left on device (os error 28)")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'table'
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


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
