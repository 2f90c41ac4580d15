"""The nearest byte string at the least edit distance, and the rules that decide between equally near ones.

Many targets lie at the same distance: ``FAILURE`` is three edits away from ``FAIL`` and from ``FILE``. The rules, in
this order, prefer the target

1. that is a prefix of the source: what follows can still complete the source,
2. that shares the longest prefix with the source,
3. that shares the longest prefix when the case of ASCII letters is ignored,
4. whose letters have the same case: the first letter, and whether there are capitals and small letters,
5. that begins with a space exactly if the source does,
6. of the lowest index. Indices ascend with token ids, which stand in for frequency: a BPE tokenizer numbers its tokens
   by merge rank, and a unigram tokenizer by score.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.errors import MissingPackageError
from logitkit.progress import progress_bar

CELLS = 2**25  # largest number of edit distances in memory, one or two bytes each
COMPARED = 32  # number of leading bytes that are compared for a shared prefix


def is_whole(text: bytes) -> bool:
    """Return whether bytes are whole characters in UTF-8.

    >>> is_whole("é".encode()), is_whole("é".encode()[:1])
    (True, False)
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def distance_bounds(sources: list[bytes], targets: set[bytes]) -> list[int]:
    """Return an upper bound, at least 1, of the edit distance from each source to its nearest target.

    The bound is the distance to the longest proper prefix or suffix that is a target. Without such a target, the bound
    is the largest possible distance.

    >>> distance_bounds([b"other", b"x"], {b"the", b"er"})
    [3, 3]
    """
    longest = max(map(len, targets))
    bounds = []
    for source in sources:
        cuts = (cut for cut in range(1, len(source)) if source[cut:] in targets or source[:-cut] in targets)
        bounds.append(next(cuts, max(len(source), longest)))
    return bounds


def nearest_targets(sources: list[bytes], bounds: list[int], targets: list[bytes]) -> NDArray[np.int64]:
    """Return the index of the best target at the least edit distance from each source, ``[sources]``.

    Args:
        sources: byte strings.
        bounds: upper bounds, at least 1, of the distance from each source to its nearest target.
        targets: byte strings, at least one. The module docstring states which of several nearest ones is the best.

    >>> nearest_targets([b"FAILURE"], [7], [b"FILE", b"FAIL"])
    array([1])
    """
    target_counts, source_counts = _class_counts(targets), _class_counts(sources)
    lengths = target_counts.sum(1)
    dtype = np.uint8 if max(lengths.max(), source_counts.sum(1).max(initial=0)) < 256 else np.uint16
    texts, preference = np.array([target.decode("latin-1") for target in targets], dtype=object), _Preference(targets)
    best = np.zeros(len(sources), dtype=np.int64)
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, bound in enumerate(bounds):
        groups.setdefault((bound, *source_counts[number].tolist()), []).append(number)
    edit_distances = _edit_distances()
    with progress_bar("edit distances", total=len(sources)) as bar:
        for (bound, *counts), group in groups.items():
            # A lower bound of the distance: each byte of a class that one string has in excess must be edited.
            least = np.maximum(lengths, sum(counts)) - np.minimum(target_counts, counts).sum(1)
            near = np.flatnonzero(least <= bound)
            choices = texts[near].tolist()
            step = max(1, CELLS // max(1, len(choices)))
            for start in range(0, len(group), step):
                part = group[start : start + step]
                queries = [sources[number].decode("latin-1") for number in part]
                table = edit_distances(queries, choices, dtype=dtype, workers=-1)
                for number, row in zip(part, table, strict=True):
                    best[number] = preference.best(sources[number], near[np.flatnonzero(row == row.min())])
                bar.advance(len(part))
    return best


def _edit_distances() -> Any:
    """Return the function that computes a table of edit distances.

    Raises:
        MissingPackageError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist
    except ModuleNotFoundError as error:
        raise MissingPackageError("align by edit distance", "rapidfuzz", "ensembles") from error
    return partial(cdist, scorer=Levenshtein.distance)


class _Preference:
    """The rules between targets at the same distance, over arrays with one row for each target."""

    def __init__(self, targets: list[bytes]) -> None:
        self._heads, self._lowered = _heads(targets), _heads([target.lower() for target in targets])
        self._lengths = np.array([len(target) for target in targets])
        self._cases = np.array([_case(target) for target in targets])
        self._spaced = np.array([target.startswith(b" ") for target in targets])

    def best(self, source: bytes, tied: NDArray[np.int64]) -> int:
        """Return the preferred one of the targets with these indices, which ascend."""
        if len(tied) == 1:
            return int(tied[0])
        shared = _shared_prefix(self._heads[tied], source)
        is_prefix = shared == self._lengths[tied]
        shared_ignoring_case = _shared_prefix(self._lowered[tied], source.lower())
        same_case = self._cases[tied] == _case(source)
        same_space = self._spaced[tied] == source.startswith(b" ")
        prefixes = (is_prefix * (COMPARED + 1) + shared) * (COMPARED + 1) + shared_ignoring_case
        score = (prefixes * 2 + same_case) * 2 + same_space
        return int(tied[score.argmax()])  # the first of equal scores


def _heads(texts: list[bytes]) -> NDArray[np.int16]:
    """Return the first `COMPARED` bytes of each text, -1 after its end, ``[texts, COMPARED]``."""
    heads = np.full((len(texts), COMPARED), -1, dtype=np.int16)
    for number, text in enumerate(texts):
        head = text[:COMPARED]
        heads[number, : len(head)] = np.frombuffer(head, dtype=np.uint8)
    return heads


def _shared_prefix(heads: NDArray[np.int16], source: bytes) -> NDArray[np.int64]:
    """Return the length of the prefix that each head shares with the source, ``[heads]``."""
    head = np.frombuffer(source[:COMPARED], dtype=np.uint8)
    agree: NDArray[np.bool_] = np.logical_and.accumulate(heads[:, : len(head)] == head, axis=1)
    lengths: NDArray[np.int64] = agree.sum(1, dtype=np.int64)
    return lengths


def _case(text: bytes) -> int:
    """Return the case of a text as one number: capitals, small letters, and a capital as the first letter."""
    letters = [character for character in text.decode(errors="ignore") if character.isalpha()]
    first = bool(letters) and letters[0].isupper()
    return any(map(str.isupper, letters)) + 2 * any(map(str.islower, letters)) + 4 * first


def _class_counts(texts: list[bytes]) -> NDArray[np.int64]:
    """Count lower-case letters, capitals, other ASCII bytes and other bytes in each text, ``[texts, 4]``."""
    byte_class = bytes(
        3 if byte > 127 else 0 if chr(byte).islower() else 1 if chr(byte).isupper() else 2 for byte in range(256)
    )
    classes = [text.translate(byte_class) for text in texts]
    return np.array([[text.count(number) for number in range(4)] for text in classes], dtype=np.int64).reshape(-1, 4)
