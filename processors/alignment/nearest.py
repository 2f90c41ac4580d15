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

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.alignment.close_pairs import close_pairs
from logitkit.processors.alignment.edit_distance import distance_table
from logitkit.progress import progress_bar

Integers = NDArray[np.int64]

CELLS = 2**25  # largest number of edit distances in memory, one or two bytes each
COMPARED = 32  # number of leading bytes that are compared for a shared prefix
SAMPLE = 256  # number of targets that are compared first
TIES = 2**18  # number of pairs at the same distance that are compared at once


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


def nearest_targets(sources: list[bytes], targets: list[bytes]) -> Integers:
    """Return the index of the best target at the least edit distance from each source, ``[sources]``.

    Args:
        sources: byte strings.
        targets: byte strings, at least one. The module docstring states which of several nearest ones is the best.

    >>> nearest_targets([b"FAILURE"], [b"FILE", b"FAIL"])
    array([1])
    """
    best, limits = _first_guesses(sources, targets)
    preference = _Preference(sources, targets)
    with progress_bar("edit distances", total=len(sources)) as bar:
        pending = np.flatnonzero(limits > 0)
        bar.advance(len(sources) - len(pending))
        for most in (1, 2):
            # A source with a target at distance 1 has no better one at distance 2.
            searched = pending[limits[pending] >= most]
            source, target, distance = close_pairs([sources[place] for place in searched.tolist()], targets, most)
            found = preference.choose(best, searched[source], target, distance)
            left = pending[~np.isin(pending, found) & (limits[pending] > most)]
            bar.advance(len(pending) - len(left))
            pending = left
        for group, table, near in _distance_tables(sources, targets, pending, limits):
            within = table.min(1, keepdims=True, initial=limits[group[0]] + 1)
            row, column = np.nonzero((table == within) & (table <= limits[group[0]]))
            preference.choose(best, group[row], near[column], table[row, column].astype(np.int64))
            bar.advance(len(group))
    return best


def _first_guesses(sources: list[bytes], targets: list[bytes]) -> tuple[Integers, Integers]:
    """Return for each source a target, and the largest distance at which another target can be preferred to it.

    The guess is the longest prefix of the source that is a target. It is the best target at its distance, so that only
    smaller distances are of interest. Where no prefix is a target, the guess means nothing, and the distance is an
    upper bound of the least one.
    """
    index = {target: place for place, target in reversed(list(enumerate(targets)))}
    shortest = min(map(len, targets))
    best, limits = np.zeros(len(sources), dtype=np.int64), np.zeros(len(sources), dtype=np.int64)
    for number, source in enumerate(sources):
        length = len(source)
        cut = next((cut for cut in range(length) if source[: length - cut] in index), None)
        most = max(length, shortest) if cut is None else cut
        most = next((other for other in range(1, min(most, length)) if source[other:] in index), most)
        if cut is not None and (cut == 0 or length - cut <= COMPARED):
            best[number], most = index[source[: length - cut]], min(most, cut - 1)
        limits[number] = most
    return best, limits


def _distance_tables(
    sources: list[bytes], targets: list[bytes], pending: Integers, limits: Integers
) -> Iterator[tuple[Integers, NDArray[np.integer[Any]], Integers]]:
    """Yield groups of sources, their edit distances from targets, and the indices of the targets.

    Targets that are not among the nearest ones, or are not within the limit of a source, are left out.

    Args:
        sources: byte strings.
        targets: byte strings.
        pending: indices of the sources that are searched.
        limits: largest distance that is of interest for each source, ``[sources]``.
    """
    texts = np.array([target.decode("latin-1") for target in targets], dtype=object)
    known = set(texts.tolist())
    target_counts = _class_counts(targets)
    lengths = target_counts.sum(1)
    by_length = np.argsort(lengths, kind="stable")
    lengths, columns = lengths[by_length], np.ascontiguousarray(target_counts[by_length].T)
    counts = _class_counts([sources[place] for place in pending.tolist()])
    for (limit, *group_counts), group in _grouped(np.column_stack([limits[pending], counts]), pending):
        length = sum(group_counts)
        window = slice(*np.searchsorted(lengths, [length - limit, length + limit + 1]).tolist())
        # A lower bound of the distance: each byte of a class that one string has in excess must be edited.
        common = sum(np.minimum(column[window], count) for column, count in zip(columns, group_counts, strict=True))
        least = np.maximum(lengths[window], length) - common
        places, least = by_length[window][least <= limit], least[least <= limit]
        queries = np.array([sources[place].decode("latin-1") for place in group.tolist()], dtype=object)
        reached = np.full(len(group), limit)
        if len(places) > 2 * SAMPLE:
            # Fewer targets are within the distances from substrings, and from the targets with the lowest bounds.
            sample = texts[places[np.argpartition(least, SAMPLE)[:SAMPLE]]].tolist()
            reached = np.minimum(distance_table(queries.tolist(), sample, limit).min(1), limit)
            inner = [
                _substring_distance(query, known, most)
                for query, most in zip(queries.tolist(), reached.tolist(), strict=True)
            ]
            reached = np.array(inner)
        for (closest,), part in _grouped(reached[:, None], np.arange(len(group))):
            near = np.sort(places[least <= closest])
            choices = texts[near].tolist()
            step = max(1, CELLS // max(1, len(choices)))
            for block in np.split(part, range(step, len(part), step)):
                yield group[block], distance_table(queries[block].tolist(), choices, closest), near


def _substring_distance(source: str, known: set[str], most: int) -> int:
    """Return the distance from the source to its longest substring in ``known``; at most ``most``."""
    length = len(source)
    for cut in range(1, min(most, length)):
        if any(source[start : start + length - cut] in known for start in range(1, cut)):
            return cut
    return most


def _grouped(kinds: Integers, places: Integers) -> Iterator[tuple[list[int], Integers]]:
    """Yield each row that occurs in ``kinds``, and the entries of ``places`` in such rows."""
    rows, row_of, counts = np.unique(kinds, axis=0, return_inverse=True, return_counts=True)
    parts = np.split(places[np.argsort(row_of.ravel(), kind="stable")], np.cumsum(counts)[:-1])
    yield from zip(rows.tolist(), parts, strict=False)  # without places, there is one empty part and no row


class _Preference:
    """The rules between targets at the same distance."""

    def __init__(self, sources: list[bytes], targets: list[bytes]) -> None:
        self._sources, self._targets = sources, targets
        self._heads, self._lengths = _heads(targets), np.array([len(target) for target in targets])

    def choose(self, best: Integers, source: Integers, target: Integers, distance: Integers) -> Integers:
        """Write the preferred target of each source into ``best``, and return the sources, without repetition.

        Args:
            best: the preferred target of each of all sources; entries of sources without a pair are kept.
            source: index of the source of each pair; equal ones are adjacent.
            target: index of the target of each pair; ascending for the same source.
            distance: edit distance of each pair.
        """
        if not len(source):
            return source
        nearest = _is_best(source, -distance.astype(np.int64))
        source, target = source[nearest], target[nearest]
        for rank_of in (self._prefix_rank, self._case_rank):
            ranks = [rank_of(source[at : at + TIES], target[at : at + TIES]) for at in range(0, len(source), TIES)]
            preferred = _is_best(source, np.concatenate(ranks))
            source, target = source[preferred], target[preferred]
        first = np.flatnonzero(np.diff(source, prepend=-1))
        best[source[first]] = target[first]
        found: Integers = source[first]
        return found

    def _prefix_rank(self, source: Integers, target: Integers) -> Integers:
        """Return numbers that order the pairs of a source by the rules about prefixes; the largest is the best."""
        heads = self._heads[target]
        numbers, place = np.unique(source, return_inverse=True)
        source_heads = _heads([self._sources[number] for number in numbers.tolist()])[place]
        shared = _shared_prefix(heads, source_heads)
        is_prefix = shared == self._lengths[target]
        shared_ignoring_case = _shared_prefix(_lowered(heads), _lowered(source_heads))
        rank: Integers = (is_prefix * (COMPARED + 1) + shared) * (COMPARED + 1) + shared_ignoring_case
        return rank

    def _case_rank(self, source: Integers, target: Integers) -> Integers:
        """Return numbers that order the pairs of a source by the rules about case and spaces; the largest wins."""
        if len(source) < 2 or bool((source[1:] != source[:-1]).all()):
            return np.zeros(len(source), dtype=np.int64)  # each source has one target, so that no rule is needed
        cases, spaces = [], []
        for texts, numbers in ((self._sources, source), (self._targets, target)):
            unique, place = np.unique(numbers, return_inverse=True)
            chosen = [texts[number] for number in unique.tolist()]
            cases.append(np.array([_case(text) for text in chosen])[place])
            spaces.append(np.array([text.startswith(b" ") for text in chosen])[place])
        rank: Integers = 2 * (cases[0] == cases[1]) + (spaces[0] == spaces[1])
        return rank


def _is_best(group: Integers, rank: Integers) -> NDArray[np.bool_]:
    """Return whether each entry has the largest rank of its group; entries of a group are adjacent."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    largest = np.maximum.reduceat(rank, starts)
    best: NDArray[np.bool_] = rank == np.repeat(largest, np.diff(starts, append=len(group)))
    return best


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


def _shared_prefix(heads: NDArray[np.int16], others: NDArray[np.int16]) -> Integers:
    """Return the length of the prefix that two heads share, for each pair, ``[pairs]``."""
    agree: NDArray[np.bool_] = np.logical_and.accumulate((heads == others) & (others >= 0), axis=1)
    lengths: Integers = agree.sum(1, dtype=np.int64)
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
