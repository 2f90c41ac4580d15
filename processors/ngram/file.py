"""The file of an n-gram table: sorted arrays in safetensors, which holds data only and is mapped into memory."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from logitkit.errors import FileFormatError, LogitkitError
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.smoothing import Backoff, Smoothing

if TYPE_CHECKING:
    from logitkit.processors.ngram.table import NgramTable

FORMAT, VERSION = "logitkit n-gram table", 1


def write(path: Path, table: NgramTable) -> None:
    """Write a table beside its place and move it there, so that no half-written file is ever found."""
    arrays: dict[str, Tensor] = {"special": table.special}
    for order, level in enumerate(table.levels, 1):
        arrays |= {f"keys.{order}": level.keys, f"starts.{order}": level.starts}
        if table.counted:
            arrays[f"counts.{order}"] = _narrow(level.counts)
        else:
            arrays[f"probability.{order}"] = table.backoff.probability[order - 1]
            arrays[f"rest.{order}"] = table.backoff.rest[order - 1]
    about: dict[str, Any] = {
        "version": VERSION,
        "orders": table.orders,
        "size": table.size,
        "base": table.base,
        "fingerprint": table.fingerprint,
        "smoothing": table.smoothing.as_data(),
        "counted": table.counted,
        "sources": table.sources,
    }
    if not table.counted:
        about |= {"unknown": table.backoff.unknown, "floor": table.backoff.floor}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        held = {name: array.cpu().contiguous() for name, array in arrays.items()}
        save_file(held, temporary, metadata={"format": FORMAT, "about": json.dumps(about)})
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Read the arguments of an `NgramTable`; arrays are mapped, not copied.

    Raises:
        FileFormatError: no such file, truncated, foreign, or of another version.
    """
    if not path.is_file():
        raise FileFormatError(f"n-gram table: {path} must be a file; make one with logitkit train-ngram")
    try:
        with safe_open(str(path), framework="pt") as held:
            metadata = held.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise FileFormatError(
                    f"n-gram table: {path} must hold a {FORMAT}, got another safetensors file; "
                    "make one with logitkit train-ngram"
                )
            about = json.loads(metadata["about"])
            if about["version"] != VERSION:
                raise FileFormatError(
                    f"n-gram table: {path} must be of version {VERSION}, got {about['version']}; train it again"
                )
            arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - no mapping
        return _assemble(about, arrays)
    except LogitkitError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise FileFormatError(
            f"n-gram table: {path} must be a whole safetensors file made by logitkit, got "
            f"{type(error).__name__}: {error}; make it again with logitkit train-ngram"
        ) from error


def _assemble(about: dict[str, Any], arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Put levels together, having made sure that they fit each other.

    Raises:
        ValueError: they do not.
    """
    orders, counted = range(1, about["orders"] + 1), about["counted"]
    levels = [Level(arrays[f"keys.{m}"], arrays.get(f"counts.{m}"), arrays[f"starts.{m}"]) for m in orders]
    contexts = len(levels[0].starts) - 1
    for order, level in enumerate(levels, 1):
        fits = len(level.starts) == contexts + 1 and int(level.starts[0]) == 0 and int(level.starts[-1]) == len(level)
        if not fits or (counted and len(level.counts) != len(level)):
            raise ValueError(f"arrays of order {order} do not fit each other")
        contexts = len(level)
    backoff = None
    if not counted:
        made = [[arrays[f"{part}.{m}"] for m in orders] for part in ("probability", "rest")]
        backoff = Backoff(made[0], made[1], about["unknown"], False, about["floor"])
    return {
        "levels": levels,
        "size": int(about["size"]),
        "base": int(about["base"]),
        "special": arrays["special"].tolist(),
        "smoothing": Smoothing(**about["smoothing"]),
        "fingerprint": about["fingerprint"],
        "sources": about["sources"],
        "backoff": backoff,
    }


def _narrow(array: Tensor) -> Tensor:
    """The same whole numbers in half the room, where they fit."""
    fits = not len(array) or int(array.max()) < 2**31
    return array.to(torch.int32) if fits else array


def _umask() -> int:
    """The permissions that new files lack in this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
