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
    lengths = np.array([len(target) for target in targets])
    longest = max(lengths.max(), max(map(len, sources), default=0))
    dtype = np.uint8 if longest < 255 else np.uint16
    texts, preference = np.array([target.decode("latin-1") for target in targets], dtype=object), _Preference(targets)
    by_length = np.argsort(lengths, kind="stable")
    sorted_lengths, sorted_counts = lengths[by_length], np.ascontiguousarray(target_counts[by_length].T)
    best = np.zeros(len(sources), dtype=np.int64)
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, bound in enumerate(bounds):
        groups.setdefault((bound, *source_counts[number].tolist()), []).append(number)
    edit_distances = _edit_distances()
    with progress_bar("edit distances", total=len(sources)) as bar:
        for (bound, *counts), group in groups.items():
            # A lower bound of the distance: each byte of a class that one string has in excess must be edited.
            first, last = np.searchsorted(sorted_lengths, [sum(counts) - bound, sum(counts) + bound + 1])
            window = slice(int(first), int(last))
            common = sum(np.minimum(column[window], count) for column, count in zip(sorted_counts, counts, strict=True))
            least = np.maximum(sorted_lengths[window], sum(counts)) - common
            near = np.sort(by_length[window][least <= bound])
            choices = texts[near].tolist()
            step = max(1, CELLS // max(1, len(choices)))
            for start in range(0, len(group), step):
                part = group[start : start + step]
                queries = [sources[number].decode("latin-1") for number in part]
                # Larger distances need not be exact: the least one is at most the bound.
                table = edit_distances(queries, choices, score_cutoff=bound, dtype=dtype, workers=-1)
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
    """The rules between targets at the same distance."""

    def __init__(self, targets: list[bytes]) -> None:
        self._targets, self._heads = targets, _heads(targets)
        self._lengths = np.array([len(target) for target in targets])

    def best(self, source: bytes, tied: NDArray[np.int64]) -> int:
        """Return the preferred one of the targets with these indices, which ascend."""
        if len(tied) == 1:
            return int(tied[0])
        heads = self._heads[tied]
        shared = _shared_prefix(heads, source)
        is_prefix = shared == self._lengths[tied]
        shared_ignoring_case = _shared_prefix(_lowered(heads), source.lower())
        prefixes = (is_prefix * (COMPARED + 1) + shared) * (COMPARED + 1) + shared_ignoring_case
        # Few targets are left, of which the last rules decide; max returns the first of equal ones.
        left = tied[prefixes == prefixes.max()].tolist()
        case, spaced = _case(source), source.startswith(b" ")
        return max(left, key=lambda place: self._agreement(place, case, spaced)) if len(left) > 1 else int(left[0])

    def _agreement(self, place: int, case: int, spaced: bool) -> tuple[bool, bool]:
        """Return whether a target has this case, and whether it begins with a space as the source does."""
        target = self._targets[place]
        return _case(target) == case, target.startswith(b" ") == spaced


def _heads(texts: list[bytes]) -> NDArray[np.int16]:
    """Return the first `COMPARED` bytes of each text, -1 after its end, ``[texts, COMPARED]``."""
    cut = [text[:COMPARED] for text in texts]
    lengths = np.array([len(text) for text in cut], dtype=np.int64)
    heads = np.full((len(texts), COMPARED), -1, dtype=np.int16)
    inside = np.arange(COMPARED) < lengths[:, None]
    heads[inside] = np.frombuffer(b"".join(cut), dtype=np.uint8)  # in the order of rows, as the texts are
    return heads


def _lowered(heads: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return heads with small letters in place of ASCII capitals."""
    return np.where((heads >= ord("A")) & (heads <= ord("Z")), heads + 32, heads)


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
    byte_class = np.array(
        [3 if byte > 127 else 0 if chr(byte).islower() else 1 if chr(byte).isupper() else 2 for byte in range(256)]
    )
    classes = byte_class[np.frombuffer(b"".join(texts), dtype=np.uint8)]
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return np.bincount(owner * 4 + classes, minlength=4 * len(texts)).reshape(-1, 4)
