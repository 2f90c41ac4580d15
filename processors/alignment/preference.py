"""Which of several byte strings at the same edit distance from another one is preferred.

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

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Heads = NDArray[np.int16]

COMPARED = 32  # number of leading bytes that are compared for a shared prefix
NO_LETTERS = bytes(byte for byte in range(128) if not chr(byte).isalpha())  # of ASCII
TIES = 2**18  # number of pairs at the same distance that are compared at once


class Preference:
    """The rules between targets at the same distance.

    Args:
        sources: byte strings.
        targets: byte strings.

    >>> best = np.zeros(1, dtype=np.int64)
    >>> preference = Preference([b"FAILURE"], [b"FILE", b"FAIL"])
    >>> preference.choose(best, np.array([0, 0]), np.array([0, 1]), np.array([3, 3]))
    array([0])
    >>> best
    array([1])
    """

    def __init__(self, sources: list[bytes], targets: list[bytes]) -> None:
        self._sources, self._targets = sources, targets
        self._heads, self._lengths = heads_of(targets), np.array([len(target) for target in targets])

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
            tied = np.flatnonzero(_has_company(source))
            if not len(tied):
                break
            parts = np.split(tied, range(TIES, len(tied), TIES))
            rank = np.zeros(len(source), dtype=np.int64)
            rank[tied] = np.concatenate([rank_of(source[part], target[part]) for part in parts])
            preferred = _is_best(source, rank)
            source, target = source[preferred], target[preferred]
        first = np.flatnonzero(np.diff(source, prepend=-1))
        best[source[first]] = target[first]
        found: Integers = source[first]
        return found

    def shared_prefix(self, source: Integers, target: Integers) -> Integers:
        """Return how many of the first `COMPARED` bytes a source and a target share, for each pair, ``[pairs]``."""
        return _shared_prefix(self._heads[target], self._source_heads(source))

    def shared_prefixes(self, source: Integers, target: Integers, wanted: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the same for all pairs of sources and targets that are wanted, 0 elsewhere, ``[sources, targets]``."""
        heads, source_heads, alive = self._heads[target], self._source_heads(source), wanted
        shared = np.zeros(wanted.shape, dtype=np.uint8)
        for place in range(COMPARED):
            column = source_heads[:, place, None]
            alive = alive & (column == heads[None, :, place]) & (column >= 0)
            if not alive.any():
                break
            shared += alive
        return shared

    def _source_heads(self, source: Integers) -> Heads:
        """Return the heads of the sources of pairs, ``[pairs, COMPARED]``."""
        numbers, place = np.unique(source, return_inverse=True)
        return heads_of([self._sources[number] for number in numbers.tolist()])[place]

    def _prefix_rank(self, source: Integers, target: Integers) -> Integers:
        """Return numbers that order the pairs of a source by the rules about prefixes; the largest is the best."""
        source_heads = self._source_heads(source)
        width = int((source_heads >= 0).any(0).sum())  # of the longest source
        heads, source_heads = self._heads[target, :width], source_heads[:, :width]
        shared = _shared_prefix(heads, source_heads)
        is_prefix = shared == self._lengths[target]
        shared_ignoring_case = _shared_prefix(_lowered(heads), _lowered(source_heads))
        rank: Integers = (is_prefix * (COMPARED + 1) + shared) * (COMPARED + 1) + shared_ignoring_case
        return rank

    def _case_rank(self, source: Integers, target: Integers) -> Integers:
        """Return numbers that order the pairs of a source by the rules about case and spaces; the largest wins."""
        cases, spaces = [], []
        for texts, numbers in ((self._sources, source), (self._targets, target)):
            unique, place = np.unique(numbers, return_inverse=True)
            chosen = [texts[number] for number in unique.tolist()]
            cases.append(np.array([_case(text) for text in chosen])[place])
            spaces.append(np.array([text.startswith(b" ") for text in chosen])[place])
        rank: Integers = 2 * (cases[0] == cases[1]) + (spaces[0] == spaces[1])
        return rank


def _has_company(group: Integers) -> NDArray[np.bool_]:
    """Return whether each entry is in a group of several; entries of a group are adjacent."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(starts, append=len(group))
    company: NDArray[np.bool_] = np.repeat(sizes > 1, sizes)
    return company


def _is_best(group: Integers, rank: Integers) -> NDArray[np.bool_]:
    """Return whether each entry has the largest rank of its group; entries of a group are adjacent."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    largest = np.maximum.reduceat(rank, starts)
    best: NDArray[np.bool_] = rank == np.repeat(largest, np.diff(starts, append=len(group)))
    return best


def heads_of(texts: list[bytes]) -> Heads:
    """Return the first `COMPARED` bytes of each text, -1 after its end, ``[texts, COMPARED]``."""
    cut = [text[:COMPARED] for text in texts]
    lengths = np.array([len(text) for text in cut], dtype=np.int64)
    heads = np.full((len(texts), COMPARED), -1, dtype=np.int16)
    inside = np.arange(COMPARED) < lengths[:, None]
    heads[inside] = np.frombuffer(b"".join(cut), dtype=np.uint8)  # in the order of rows, as the texts are
    return heads


def _lowered(heads: Heads) -> Heads:
    """Return heads with small letters in place of ASCII capitals."""
    return np.where((heads >= ord("A")) & (heads <= ord("Z")), heads + 32, heads)


def _shared_prefix(heads: Heads, others: Heads) -> Integers:
    """Return the length of the prefix that two heads share, for each pair, ``[pairs]``."""
    agree: NDArray[np.bool_] = np.logical_and.accumulate((heads == others) & (others >= 0), axis=1)
    lengths: Integers = agree.sum(1, dtype=np.int64)
    return lengths


def _case(text: bytes) -> int:
    """Return the case of a text as one number: capitals, small letters, and a capital as the first letter."""
    if text.isascii():
        ascii_letters = text.translate(None, NO_LETTERS)
        capitals, small = ascii_letters != ascii_letters.lower(), ascii_letters != ascii_letters.upper()
        return capitals + 2 * small + 4 * ascii_letters[:1].isupper()
    letters = [character for character in text.decode(errors="ignore") if character.isalpha()]
    first = bool(letters) and letters[0].isupper()
    return any(map(str.isupper, letters)) + 2 * any(map(str.islower, letters)) + 4 * first
