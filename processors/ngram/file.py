"""The file format of n-gram tables: sorted arrays in safetensors, which holds data only and is mapped into memory.

Loading checks every array: its type, its length, its order and the range of its values. A checksum of the arrays and
of the metadata is inside the file. Files of older versions of logitkit have no checksum, and are checked without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from logitkit.errors import FileFormatError
from logitkit.files import check_readable, parse_json, replace_file, save_tensors
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.smoothing import BackoffModel, Smoothing

if TYPE_CHECKING:
    from logitkit.processors.ngram.table import NgramTable

FORMAT, VERSION = "logitkit n-gram table", 1
MOST_ORDERS = 5  # as in `NgramTable`
MOST_IDS = 2**28  # a table allocates memory for every id, so a damaged number of ids must not reach it
CHECKSUM = "sha256"


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
    about = json.dumps(metadata)
    header = {"format": FORMAT, "about": about, CHECKSUM: _checksum(about, contiguous)}
    with replace_file(path) as temporary:
        save_tensors(contiguous, temporary, header)


def read(path: Path) -> dict[str, Any]:
    """Read the constructor's arguments of an `NgramTable`; the arrays are mapped into memory and not copied.

    Raises:
        FileFormatError: no such file, or a truncated or damaged file, another format, or another version.
    """
    try:
        check_readable(path)
    except OSError as error:
        raise FileFormatError(
            f"n-gram table: {path} must be a file, got: {error.strerror}; make one with logitkit train-ngram"
        ) from error
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise FileFormatError(
                    f"n-gram table: {path} must be a {FORMAT}, got another safetensors file; "
                    "make one with logitkit train-ngram"
                )
            metadata = parse_json(header["about"])
            if metadata["version"] != VERSION:
                raise FileFormatError(
                    f"n-gram table: {path} must be of version {VERSION}, got {metadata['version']}; train it again"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable itself
        if CHECKSUM in header and header[CHECKSUM] != _checksum(header["about"], arrays):
            raise ValueError("contents that do not have the checksum in the file")
        return _table_arguments(metadata, arrays)
    except FileFormatError:
        raise
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RecursionError, RuntimeError) as error:
        raise FileFormatError(
            f"n-gram table: {path} must be a whole safetensors file made by logitkit, got "
            f"{type(error).__name__}: {error}; make it again with logitkit train-ngram"
        ) from error


def _table_arguments(metadata: dict[str, Any], arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Check the metadata and the arrays and return the arguments of an `NgramTable`.

    Raises:
        ValueError: a value out of range, or arrays that do not fit each other.
        KeyError: an array or an entry of the metadata is missing.
    """
    last = _whole("orders", metadata["orders"], 1, MOST_ORDERS)
    has_counts = metadata["counted"]
    if not isinstance(has_counts, bool):
        raise ValueError(f"counted = {has_counts!r:.40}")
    levels = [
        Level(arrays[f"keys.{m}"], arrays[f"counts.{m}"] if has_counts else None, arrays[f"starts.{m}"])
        for m in range(1, last + 1)
    ]
    contexts = [max(len(levels[0].starts) - 1, 1), *map(len, levels)]
    for order, level in enumerate(levels, 1):
        counts_fit = level.counts is None or level.counts.shape == level.keys.shape
        if not counts_fit or level.starts.shape != (contexts[order - 1] + 1,):
            raise ValueError(f"arrays of order {order} do not fit each other")
    base = _whole("base", metadata["base"], 1, MOST_IDS)
    for order, level in enumerate(levels, 1):
        _check_level(order, level, base=base, contexts=contexts[order - 1])
    special = _array("special", arrays["special"], torch.int64, len(arrays["special"]), least=0, most=base - 1)
    fingerprint, sources = metadata["fingerprint"], metadata["sources"]
    if not isinstance(fingerprint, str | None) or not isinstance(sources, list):
        raise ValueError(f"fingerprint {fingerprint!r:.40} and sources {sources!r:.40}")
    return {
        "levels": levels,
        "size": _whole("size", metadata["size"], 1, base),
        "base": base,
        "special": special.tolist(),
        "smoothing": Smoothing(**metadata["smoothing"]),
        "fingerprint": fingerprint,
        "sources": sources,
        "backoff": None if has_counts else _backoff(metadata, arrays, levels),
    }


def _check_level(order: int, level: Level, *, base: int, contexts: int) -> None:
    """Check the n-grams of one order.

    Args:
        order: length of the n-grams.
        level: its arrays.
        base: one more than the largest id.
        contexts: number of contexts, which is the number of n-grams one order lower.

    Raises:
        ValueError: another type, length or order of the arrays, or a value out of range.
    """
    keys, starts = level.keys, level.starts
    _array(f"keys.{order}", keys, torch.int64, keys.numel(), least=0, most=contexts * base - 1)
    if bool((keys[1:] <= keys[:-1]).any()):
        raise ValueError(f"keys of order {order} that are not sorted, or not different")
    if level.counts is not None:
        name, counts = f"counts.{order}", level.counts
        kind = torch.int32 if counts.dtype == torch.int32 else torch.int64
        _array(name, counts, kind, len(keys), least=0, most=2**53)
        if float(counts.double().sum()) > 2**53:  # sums of counts are computed in float64
            raise ValueError(f"{name} with a sum above 2**53")
    _array(f"starts.{order}", starts, torch.int64, contexts + 1, least=0, most=len(keys))
    firsts = torch.arange(contexts + 1, dtype=torch.int64) * base
    if not torch.equal(starts, torch.searchsorted(keys, firsts)):
        raise ValueError(f"starts of order {order} that are not the first n-gram of each context")


def _backoff(metadata: Mapping[str, Any], arrays: Mapping[str, Tensor], levels: list[Level]) -> BackoffModel:
    """Return the probabilities of a table without counts.

    Raises:
        ValueError: a probability outside 0 to 1, or a weight that is negative or not finite.
    """
    probability, weight = [], []
    contexts = len(levels[0].starts) - 1
    for order, level in enumerate(levels, 1):
        names = f"probability.{order}", f"weight.{order}"
        probability.append(_array(names[0], arrays[names[0]], torch.float64, len(level), least=0, most=1))
        weight.append(_array(names[1], arrays[names[1]], torch.float64, contexts, least=0, most=math.inf))
        contexts = len(level)
    unseen_weight, floor = metadata["unseen_weight"], metadata["floor"]
    for name, value, most in (("unseen_weight", unseen_weight, math.inf), ("floor", floor, 1)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value == math.inf:
            raise ValueError(f"{name} = {value!r:.40}")
    return BackoffModel(
        probability=probability, weight=weight, unseen_weight=unseen_weight, backs_off=True, floor=floor
    )


def _array(name: str, array: Tensor, dtype: torch.dtype, length: int, *, least: float, most: float) -> Tensor:
    """Return an array of the file if it has this type and length, and all its values are finite and in the range.

    Raises:
        ValueError: it has not.
    """
    if array.dtype != dtype or array.shape != (length,):
        raise ValueError(f"{name} of {array.dtype} {[*array.shape]} instead of {dtype} [{length}]")
    # A minimum and a maximum keep NaN, which no comparison accepts.
    if length and not (least <= float(array.min()) and float(array.max()) <= most and float(array.max()) < math.inf):
        raise ValueError(f"{name} with values outside {least} to {most}")
    return array


def _whole(name: str, value: Any, least: int, most: int) -> int:
    """Return an entry of the metadata if it is a whole number in the range.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} = {value!r:.40} instead of a whole number from {least} to {most}")
    return value


def _checksum(about: str, arrays: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the metadata and of the name, type, shape and bytes of every array."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name} {array.dtype} {[*array.shape]}\0".encode())
        digest.update(array.contiguous().numpy().data)
    return digest.hexdigest()


def _narrowed(array: Tensor) -> Tensor:
    """Return integers as int32 where they fit, to halve the size of the file."""
    fits = not len(array) or int(array.max()) < 2**31
    return array.to(torch.int32) if fits else array
