"""Pairs of byte strings that may be nearest to each other, found by the bytes that they share in any order.

The bag of a string is the number of times that each byte occurs in it. An edit changes one byte, so the edit distance
of two strings is at least

    max(their lengths) - (the number of bytes that their bags share).

The number of shared bytes is the product of two vectors with a 1 for each byte and each of its occurrences. One product
of matrices therefore bounds the distances of all pairs from below, and few pairs are left to compare. Rare bytes share
columns of the vectors, which makes the bound lower and keeps it a bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.alignment.edit_distance import distance_table, paired_distances
from logitkit.processors.alignment.preference import Preference

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Pairs = tuple[Integers, Integers, Integers]

OCCURRENCES = 8  # occurrences of a byte in a string that are told apart
OWN, SHARED = 56, 8  # columns of the most frequent occurrences, one each, and of all others
CELLS = 2**22  # largest number of bounds in memory
FIRST = 48  # number of pairs of a source that are compared first
NEXT = 4  # number of targets before and behind a source, in the order of their bytes, that are compared first
SMALL = 1024  # number of targets up to which all are compared
FEW = 16  # pairs are compared one by one where they are fewer than one in so many


class BagIndex:
    """Targets by their bags.

    Args:
        texts: byte strings, at least one.
        numbers: their numbers, ascending.

    >>> index = BagIndex([b"cat", b"act", b"dog"], np.arange(3))
    >>> index.bags([b"taco"])[0] @ index.bags([b"cat", b"dog"]).T  # "taco" shares "c", "a", "t" with "cat"
    array([3., 1.], dtype=float32)
    """

    def __init__(self, texts: list[bytes], numbers: Integers) -> None:
        lengths = np.array([len(text) for text in texts])
        by_length = np.argsort(lengths, kind="stable")
        self.numbers, self.lengths = numbers[by_length], lengths[by_length]
        ordered = [texts[place] for place in by_length.tolist()]
        _, kinds = _occurrences(ordered)
        counts = np.bincount(kinds, minlength=256 * OCCURRENCES)
        self._column = np.full(256 * OCCURRENCES, -1)  # no column: the occurrence is in no target
        frequent = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        self._column[frequent] = np.arange(len(frequent))
        self._column[frequent[OWN:]] = OWN + np.arange(len(frequent[OWN:])) % SHARED
        known = np.flatnonzero(counts.reshape(256, -1).any(1)).tolist()
        other = next((byte for byte in range(256) if byte not in known), 0)
        self._known = bytes(byte if byte in known else other for byte in range(256))
        # The last column holds minus the larger one of two lengths, for one length of sources at a time.
        self._vectors = np.concatenate([self.bags(ordered), np.zeros((len(texts), 1), dtype=np.float32)], axis=1)
        self._most, self._length = self._vectors.max(0)[:-1], -1
        order = sorted(range(len(ordered)), key=ordered.__getitem__)
        self._product = np.empty(max(CELLS, len(texts)), dtype=np.float32)
        self.places = np.arange(len(texts))
        self._sorted = [ordered[place] for place in order]
        self._place: Integers = np.array(order, dtype=np.int64)

    def bags(self, texts: list[bytes]) -> Floats:
        """Return the vectors of byte strings, ``[texts, columns]``."""
        owner, kinds = _occurrences(texts)
        column = self._column[kinds]
        known, width = column >= 0, OWN + SHARED
        counts = np.bincount(owner[known] * width + column[known], minlength=width * len(texts))
        return counts.reshape(-1, width).astype(np.float32)

    def most_shared(self, bags: Floats) -> Floats:
        """Return an upper bound of the number of bytes that each bag shares with any target, ``[bags]``."""
        most: Floats = np.minimum(bags, self._most).sum(1)
        return most

    def window(self, length: int, most: int) -> slice:
        """Return the places of the targets whose lengths differ from a length by at most ``most``."""
        low, high = np.searchsorted(self.lengths, [length - most, length + most + 1]).tolist()
        return slice(low, high)

    def known_bytes(self, text: bytes) -> bytes:
        """Return a text with one byte in place of all bytes that no target has."""
        return text.translate(self._known)

    def bounds(self, texts: list[bytes], window: slice) -> Floats:
        """Return minus the lower bounds of the distances of texts of one length from targets, ``[texts, window]``."""
        length = len(texts[0])
        if length != self._length:
            self._vectors[:, -1], self._length = -np.maximum(self.lengths, length), length
        ones = np.ones((len(texts), 1), dtype=np.float32)
        # One array for all products: fresh pages of memory cost more than the product.
        product: Floats = self._product[: len(texts) * (window.stop - window.start)].reshape(len(texts), -1)
        np.matmul(np.concatenate([self.bags(texts), ones], axis=1), self._vectors[window].T, out=product)
        return product

    def neighbours(self, text: bytes) -> Integers:
        """Return the places of the targets next to a text in the order of their bytes, ``[2 * NEXT]``."""
        place = bisect_left(self._sorted, text)
        near: Integers = self._place[np.arange(place - NEXT, place + NEXT).clip(0, len(self._sorted) - 1)]
        return near

    def with_prefix(self, prefix: bytes) -> Integers:
        """Return the places of the targets that begin with a prefix."""
        low = bisect_left(self._sorted, prefix)
        after = prefix.rstrip(b"\xff")
        if not after:
            return self._place[low:]
        return self._place[low : bisect_left(self._sorted, after[:-1] + bytes([after[-1] + 1]), low)]


class BagSearch:
    """Searches the targets that can be preferred, among those within the limits of sources.

    Args:
        sources: byte strings.
        targets: byte strings.
        preference: the rules between targets at the same distance.
    """

    def __init__(self, sources: list[bytes], targets: list[bytes], preference: Preference) -> None:
        self._sources, self._preference = sources, preference
        self._lengths = np.array([len(source) for source in sources])
        # Strings of one character for each byte are compared faster than bytes.
        self._source_texts, self._target_texts = (
            np.array([text.decode("latin-1") for text in side], dtype=object) for side in (sources, targets)
        )
        # Many sources differ from each other in bytes that no target of a part has: digits, and other scripts.
        kinds = np.array([0 if len(target) < 2 else 2 if target.isascii() else 1 for target in targets])
        parts = [np.flatnonzero(kinds == kind) for kind in range(3)]
        self._parts = [BagIndex([targets[at] for at in part.tolist()], part) for part in parts if len(part)]

    def pairs(self, pending: Integers, limits: Integers) -> Pairs:
        """Return pairs of sources and targets among which are all that can be preferred, and their distances.

        Args:
            pending: indices of the sources that are searched.
            limits: largest distance that is of interest for each source, ``[sources]``.

        Returns:
            Three arrays of the same length, ordered by source, then by target.
        """
        reached = limits.copy()
        found = [pairs for part in self._parts for pairs in self._of_part(part, pending, reached)]
        if not found:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty, empty
        source, target, distance = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.lexsort((target, source))
        return source[order], target[order], distance[order]

    def _of_part(self, part: BagIndex, pending: Integers, reached: Integers) -> Iterator[Pairs]:
        """Yield pairs with the targets of a part, and lower ``reached`` to the distances that are found."""
        texts = [self._sources[place] for place in pending.tolist()]
        possible = self._lengths[pending] - part.most_shared(part.bags(texts)) <= reached[pending]
        # Sources that differ in bytes of no target have the same distances: one of them is searched.
        alike: dict[tuple[bytes, int], list[int]] = {}
        for number in pending[possible].tolist():
            alike.setdefault((part.known_bytes(self._sources[number]), int(reached[number])), []).append(number)
        first = np.array([numbers[0] for numbers in alike.values()], dtype=np.int64)
        members = dict(zip(first.tolist(), alike.values(), strict=True))
        for block in self._blocks(part, first, reached):
            source, target, distance = self._of_block(part, block, reached)
            for number in block.tolist():
                reached[members[number]] = reached[number]
            yield _repeated(source, target, distance, members)

    def _blocks(self, part: BagIndex, sources: Integers, reached: Integers) -> Iterator[Integers]:
        """Yield sources of the same length with the same limit, as many as can be compared with a part at once."""
        kinds = np.stack([self._lengths[sources], reached[sources]])
        order = np.lexsort(kinds)
        changes = np.flatnonzero(np.diff(kinds[:, order]).any(0)) + 1
        for group in np.split(sources[order], changes) if len(sources) else ():
            window = part.window(int(self._lengths[group[0]]), int(reached[group[0]]))
            if window.stop > window.start:
                step = max(1, CELLS // (window.stop - window.start))
                yield from np.split(group, range(step, len(group), step))

    def _of_block(self, part: BagIndex, block: Integers, reached: Integers) -> Pairs:
        """Return the pairs of some sources of the same length and limit with the targets of a part."""
        window = part.window(int(self._lengths[block[0]]), int(reached[block[0]]))
        if window.stop - window.start <= SMALL:
            return self._of_all(part.numbers[window], block, reached)
        bounds = part.bounds([self._sources[number] for number in block.tolist()], window)
        limit = reached[block].astype(np.float32)
        row, column = self._first(part, window, block, bounds >= np.maximum(bounds.max(1) - 1, -limit)[:, None])
        source, target = block[row], part.numbers[window][column]
        distance = self._measured(source, target, int(limit.max()))
        np.minimum.at(reached, source, distance)
        nearest = distance == reached[source]
        shared = np.zeros(len(block), dtype=np.int64)
        np.maximum.at(shared, row[nearest], self._preference.shared_prefix(source[nearest], target[nearest]))
        return self._within(part, window, block, bounds, shared, reached)

    def _first(
        self, part: BagIndex, window: slice, block: Integers, likely: NDArray[np.bool_]
    ) -> tuple[Integers, Integers]:
        """Return rows and columns of targets that are compared first: some of those that are likely, and neighbours."""
        row, column = _places(likely)
        starts = np.searchsorted(row, np.arange(len(block) + 1))
        step = (-(-np.diff(starts) // FIRST)).clip(min=1)
        some = (np.arange(len(row)) - starts[row]) % step[row] == 0
        near = np.array([part.neighbours(self._sources[number]) for number in block.tolist()]) - window.start
        inside, number = _places((near >= 0) & (near < window.stop - window.start))
        return np.append(row[some], inside), np.append(column[some], near[inside, number])

    def _within(
        self, part: BagIndex, window: slice, block: Integers, bounds: Floats, shared: Integers, reached: Integers
    ) -> Pairs:
        """Return the pairs within the distances that are reached.

        A target at the same distance is preferred only if it shares a prefix that is at least as long.

        Args:
            part: the targets.
            window: those that are of interest.
            block: the sources.
            bounds: minus the least distances, ``[block, window]``.
            shared: length of the longest prefix shared with a target at the distance reached, ``[block]``.
            reached: distances reached, ``[sources]``.
        """
        ties = [self._with_prefix(part, window, *pair) for pair in zip(block.tolist(), shared.tolist(), strict=True)]
        counts = np.array([len(places) for places in ties])
        narrow = counts * FEW < bounds.shape[1]
        limit = -reached[block].astype(np.float32)
        possible = bounds >= (limit + narrow)[:, None]
        if np.count_nonzero(possible) * FEW > possible.size:
            return self._of_all(part.numbers[window], block, reached)
        row, column = _places(possible)
        tied_row = np.repeat(np.flatnonzero(narrow), counts[narrow])
        tied_column = np.concatenate([*(ties[at] for at in np.flatnonzero(narrow)), np.zeros(0, dtype=np.int64)])
        level = bounds[tied_row, tied_column] == limit[tied_row]
        row, column = np.append(row, tied_row[level]), np.append(column, tied_column[level])
        source, target = block[row], part.numbers[window][column]
        distance = self._measured(source, target, int(reached[block].max()))
        np.minimum.at(reached, source, distance)
        near = distance == reached[source]
        return source[near], target[near], distance[near]

    def _of_all(self, numbers: Integers, block: Integers, reached: Integers) -> Pairs:
        """Return the nearest pairs of sources with all of some targets, those that share the longest prefix."""
        texts = self._source_texts[block].tolist(), self._target_texts[numbers].tolist()
        table = distance_table(*texts, int(reached[block].max()))
        reached[block] = np.minimum(table.min(1), reached[block])
        tied = table == reached[block][:, None]
        shared = self._preference.shared_prefixes(block, numbers, tied)
        row, column = _places(tied & (shared == shared.max(1, keepdims=True)))
        return block[row], numbers[column], table[row, column].astype(np.int64)

    def _with_prefix(self, part: BagIndex, window: slice, source: int, length: int) -> Integers:
        """Return the places in a window of the targets that share the first ``length`` bytes with a source."""
        if not length:
            return part.places
        places = part.with_prefix(self._sources[source][:length]) - window.start
        inside: Integers = places[(places >= 0) & (places < window.stop - window.start)]
        return inside

    def _measured(self, source: Integers, target: Integers, most: int) -> Integers:
        """Return the edit distance of each pair; distances above ``most`` are returned as some number above it."""
        if not len(source):
            return np.zeros(0, dtype=np.int64)
        texts, targets = self._source_texts[source].tolist(), self._target_texts[target].tolist()
        return paired_distances(texts, targets, most).astype(np.int64)


def _repeated(source: Integers, target: Integers, distance: Integers, members: Mapping[int, list[int]]) -> Pairs:
    """Return the pairs of sources as pairs of all their members."""
    alike = [members[number] for number in source.tolist()]
    counts = [len(numbers) for numbers in alike]
    every = np.array([number for numbers in alike for number in numbers], dtype=np.int64)
    return every, np.repeat(target, counts), np.repeat(distance, counts)


def _places(table: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """Return the rows and columns of the true entries, in the order of rows."""
    return np.divmod(np.flatnonzero(table), table.shape[1])


def _occurrences(texts: list[bytes]) -> tuple[Integers, Integers]:
    """Return for each byte of all texts the number of its text, and the number of its byte and occurrence."""
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    letters = owner * 256 + np.frombuffer(b"".join(texts), dtype=np.uint8)
    letters = np.sort(letters)
    starts = np.flatnonzero(np.diff(letters, prepend=-1))
    number = np.arange(len(letters)) - np.repeat(starts, np.diff(starts, append=len(letters)))
    owner, letter = np.divmod(letters, 256)
    return owner, letter * OCCURRENCES + np.minimum(number, OCCURRENCES - 1)
