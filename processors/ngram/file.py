"""The file format of n-gram tables: sorted arrays in safetensors, which holds data only and is mapped into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from logitkit.errors import FileFormatError, LogitkitError
from logitkit.files import replace_file
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.smoothing import BackoffModel, Smoothing

if TYPE_CHECKING:
    from logitkit.processors.ngram.table import NgramTable

FORMAT, VERSION = "logitkit n-gram table", 1


def write(path: Path, table: NgramTable) -> None:
    """Write a table to a file, which replaces an existing file at once."""
    arrays: dict[str, Tensor] = {"special": table.special}
    for order, level in enumerate(table.levels, 1):
        arrays |= {f"keys.{order}": level.keys, f"starts.{order}": level.starts}
        if table.has_counts:
            arrays[f"counts.{order}"] = _narrowed(level.counts)
        else:
            arrays[f"probability.{order}"] = table.backoff.probability[order - 1]
            arrays[f"weight.{order}"] = table.backoff.weight[order - 1]
    metadata: dict[str, Any] = {
        "version": VERSION,
        "orders": table.orders,
        "size": table.size,
        "base": table.base,
        "fingerprint": table.fingerprint,
        "smoothing": table.smoothing.as_data(),
        "counted": table.has_counts,
        "sources": table.sources,
    }
    if not table.has_counts:
        metadata |= {"unseen_weight": table.backoff.unseen_weight, "floor": table.backoff.floor}
    contiguous = {name: array.cpu().contiguous() for name, array in arrays.items()}
    with replace_file(path) as temporary:
        save_file(contiguous, temporary, metadata={"format": FORMAT, "about": json.dumps(metadata)})


def read(path: Path) -> dict[str, Any]:
    """Read the constructor's arguments of an `NgramTable`; the arrays are mapped into memory and not copied.

    Raises:
        FileFormatError: no such file, or a truncated file, another format, or another version.
    """
    if not path.is_file():
        raise FileFormatError(f"n-gram table: {path} must be a file; make one with logitkit train-ngram")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise FileFormatError(
                    f"n-gram table: {path} must be a {FORMAT}, got another safetensors file; "
                    "make one with logitkit train-ngram"
                )
            metadata = json.loads(header["about"])
            if metadata["version"] != VERSION:
                raise FileFormatError(
                    f"n-gram table: {path} must be of version {VERSION}, got {metadata['version']}; train it again"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable itself
        return _table_arguments(metadata, arrays)
    except LogitkitError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise FileFormatError(
            f"n-gram table: {path} must be a whole safetensors file made by logitkit, got "
            f"{type(error).__name__}: {error}; make it again with logitkit train-ngram"
        ) from error


def _table_arguments(metadata: dict[str, Any], arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Check that the arrays fit each other and return the arguments of an `NgramTable`.

    Raises:
        ValueError: the arrays do not fit each other.
        KeyError: an array or an entry of the metadata is missing.
    """
    orders, has_counts = range(1, metadata["orders"] + 1), metadata["counted"]
    levels = [Level(arrays[f"keys.{m}"], arrays.get(f"counts.{m}"), arrays[f"starts.{m}"]) for m in orders]
    contexts = len(levels[0].starts) - 1
    for order, level in enumerate(levels, 1):
        fits = len(level.starts) == contexts + 1 and int(level.starts[0]) == 0 and int(level.starts[-1]) == len(level)
        if not fits or (has_counts and len(level.counts) != len(level)):
            raise ValueError(f"arrays of order {order} do not fit each other")
        contexts = len(level)
    backoff = None
    if not has_counts:
        backoff = BackoffModel(
            probability=[arrays[f"probability.{m}"] for m in orders],
            weight=[arrays[f"weight.{m}"] for m in orders],
            unseen_weight=metadata["unseen_weight"],
            backs_off=True,
            floor=metadata["floor"],
        )
    return {
        "levels": levels,
        "size": int(metadata["size"]),
        "base": int(metadata["base"]),
        "special": arrays["special"].tolist(),
        "smoothing": Smoothing(**metadata["smoothing"]),
        "fingerprint": metadata["fingerprint"],
        "sources": metadata["sources"],
        "backoff": backoff,
    }


def _narrowed(array: Tensor) -> Tensor:
    """Return integers as int32 where they fit, to halve the size of the file."""
    fits = not len(array) or int(array.max()) < 2**31
    return array.to(torch.int32) if fits else array
