"""Pairs of byte strings at an edit distance of 1 or 2, found without comparing every pair.

Two strings at distance ``k`` become equal when at most ``k`` bytes are deleted from each. The strings that deletions
leave are hashed, and equal hashes are joined; the distance of each pair that this finds is computed. Equal hashes of
different strings cost time and change no result.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.alignment.edit_distance import paired_distances

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(BASE, -1, 2**64)
FILTER_BITS = 24  # a filter has 2**24 entries of one byte; a hash is looked up by its leading bits
BLOCK = 2**20  # largest number of hashes that are computed at once, and of pairs that are compared at once


def close_pairs(sources: list[bytes], targets: list[bytes], most: int) -> tuple[Integers, Integers, Integers]:
    """Return the indices of sources and targets at an edit distance of at most ``most``, and the distances.

    Args:
        sources: byte strings.
        targets: byte strings.
        most: largest distance, 1 or 2.

    Returns:
        Three arrays of the same length, ordered by source, then by target.

    >>> [part.tolist() for part in close_pairs([b"cat", b"dog"], [b"hat", b"cats", b"do"], 1)]
    [[0, 0, 1], [0, 1, 2], [1, 1, 1]]
    """
    if not sources or not targets:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    swapped = len(sources) > len(targets)
    few, many = (targets, sources) if swapped else (sources, targets)
    keys, owners = _concatenated(_deletion_hashes(few, most))
    known = np.zeros(2**FILTER_BITS, dtype=bool)
    known[keys >> np.uint64(64 - FILTER_BITS)] = True
    order = np.argsort(keys)
    keys, owners = keys[order], owners[order]
    starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))  # of equal hashes
    lengths, keys = np.diff(starts, append=len(keys)), keys[starts]
    other_keys, other_owners = _concatenated(_deletion_hashes(many, most, known))
    order = np.argsort(other_keys)  # neighbouring hashes are searched in the same part of the memory
    other_keys, other_owners = other_keys[order], other_owners[order]
    group = np.searchsorted(keys, other_keys).clip(max=len(keys) - 1)
    joined = keys[group] == other_keys
    group, other_owners = group[joined], other_owners[joined]
    first, counts = starts[group], lengths[group]
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    few_side, many_side = owners[np.repeat(first, counts) + inside], np.repeat(other_owners, counts)
    source, target = (many_side, few_side) if swapped else (few_side, many_side)
    pairs = np.sort(source * len(targets) + target)  # np.unique would take longer
    source, target = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], len(targets))
    return _measured(sources, targets, source, target, most)


def _measured(
    sources: list[bytes], targets: list[bytes], source: Integers, target: Integers, most: int
) -> tuple[Integers, Integers, Integers]:
    """Return the pairs of these indices at a distance of at most ``most``, and the distances."""
    lengths, target_lengths = np.array([len(text) for text in sources]), np.array([len(text) for text in targets])
    # Strings of one character for each byte are compared faster than bytes.
    texts, target_texts = ([text.decode("latin-1") for text in side] for side in (sources, targets))
    near = np.abs(lengths[source] - target_lengths[target]) <= most
    source, target = source[near], target[near]
    distance = np.concatenate(
        [
            paired_distances(
                [texts[place] for place in source[start : start + BLOCK].tolist()],
                [target_texts[place] for place in target[start : start + BLOCK].tolist()],
                most,
            )
            for start in range(0, len(source), BLOCK)
        ]
        or [np.zeros(0, dtype=np.int64)]
    )
    kept = distance <= most
    return source[kept], target[kept], distance[kept]


def _concatenated(parts: Iterator[tuple[Hashes, Integers]]) -> tuple[Hashes, Integers]:
    """Return all hashes, and the indices of the texts that they belong to."""
    hashes, owners = zip(*parts, strict=True)
    return np.concatenate(hashes), np.concatenate(owners)


def _deletion_hashes(
    texts: list[bytes], most: int, known: NDArray[np.bool_] | None = None
) -> Iterator[tuple[Hashes, Integers]]:
    """Yield hashes of texts without up to ``most`` of their bytes, and the indices of these texts.

    Args:
        texts: byte strings.
        most: largest number of deleted bytes, 1 or 2.
        known: leading bits of the hashes that are wanted; None for all of them.
    """
    lengths = np.array([len(text) for text in texts])
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        step = max(1, BLOCK // (1 + length + (length * (length - 1) // 2 if most > 1 else 0)))
        for start in range(0, len(places), step):
            part = places[start : start + step]
            text = np.frombuffer(b"".join(texts[place] for place in part.tolist()), dtype=np.uint8)
            for hashes in _hashes_of(text.reshape(len(part), length), most):
                owners = np.repeat(part, hashes.shape[1])
                flat = hashes.ravel()
                wanted = slice(None) if known is None else known[flat >> np.uint64(64 - FILTER_BITS)]
                yield flat[wanted], owners[wanted]


def _hashes_of(text: NDArray[np.uint8], most: int) -> Iterator[Hashes]:
    """Yield polynomial hashes modulo 2**64 of rows without 0, 1 and at most ``most`` bytes, ``[rows, deletions]``."""
    rows, length = text.shape
    powers = np.array([pow(BASE, place + 1, 2**64) for place in range(length)], dtype=np.uint64)
    sums = np.zeros((rows, length + 1), dtype=np.uint64)  # hashes of the first bytes of each row
    np.cumsum((text.astype(np.uint64) + np.uint64(1)) * powers, axis=1, out=sums[:, 1:])
    yield sums[:, -1:]
    # A byte after a deleted one moves one place to the front: its power is divided by the base.
    once, twice = np.uint64(INVERSE), np.uint64(INVERSE**2 % 2**64)
    yield sums[:, :-1] + (sums[:, -1:] - sums[:, 1:]) * once
    if most > 1 and length > 1:
        one, other = np.triu_indices(length, 1)
        between = (sums[:, other] - sums[:, one + 1]) * once
        after = (sums[:, -1:] - sums[:, other + 1]) * twice
        yield (sums[:, one] + between + after).astype(np.uint64, copy=False)  # the type is known; mypy infers floats
