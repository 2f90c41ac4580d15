"""Edit distances by rapidfuzz, of byte strings written as strings of one character for each byte."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.errors import MissingPackageError


def distance_table(sources: list[str], targets: list[str], most: int) -> NDArray[np.integer[Any]]:
    """Return the edit distance of each source from each target, ``[sources, targets]``.

    Distances above ``most`` are returned as some number above ``most``.

    >>> distance_table(["cat"], ["hat", "cast"], 2).tolist()
    [[1, 1]]
    """
    table: NDArray[np.integer[Any]] = _function("cdist")(sources, targets, score_cutoff=most, **_size(most))
    return table


def paired_distances(sources: list[str], targets: list[str], most: int) -> NDArray[np.int64]:
    """Return the edit distance of each source from the target at the same place, ``[sources]``.

    Distances above ``most`` are returned as some number above ``most``.

    >>> paired_distances(["cat", "dog"], ["hat", "dot"], 2).tolist()
    [1, 1]
    """
    distances: NDArray[np.int64] = _function("cpdist")(sources, targets, score_cutoff=most, **_size(most))
    return distances


def _size(most: int) -> dict[str, Any]:
    """Return the smallest type that holds every distance up to ``most + 1``, and the use of all processors."""
    return {"dtype": np.uint8 if most < 255 else np.uint16, "workers": -1}


def _function(name: str) -> Any:
    """Return a function of rapidfuzz that computes edit distances.

    Raises:
        MissingPackageError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz import process
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError as error:
        raise MissingPackageError("align by edit distance", "rapidfuzz", "ensembles") from error
    return partial(getattr(process, name), scorer=Levenshtein.distance)
