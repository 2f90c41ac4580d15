"""The nearest byte string at the least edit distance.

`logitkit.processors.alignment.preference` decides between several at this distance.
"""

from __future__ import annotations

import numpy as np

from logitkit.processors.alignment.bag_search import BagSearch
from logitkit.processors.alignment.close_pairs import close_pairs
from logitkit.processors.alignment.preference import COMPARED, Integers, Preference
from logitkit.progress import progress_bar

SEARCHED = 2**14  # number of sources that are searched at once


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
        targets: byte strings, at least one. `Preference` states which of several nearest ones is the best.

    >>> nearest_targets([b"FAILURE"], [b"FILE", b"FAIL"])
    array([1])
    """
    best, limits = _first_guesses(sources, targets)
    preference = Preference(sources, targets)
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
        search = BagSearch(sources, targets, preference)
        # Sources of one length are searched together.
        pending = pending[np.argsort([len(sources[place]) for place in pending.tolist()], kind="stable")]
        for start in range(0, len(pending), SEARCHED):
            part = pending[start : start + SEARCHED]
            preference.choose(best, *search.pairs(part, limits))
            bar.advance(len(part))
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
        length = kept = len(source)
        while kept and source[:kept] not in index:
            kept -= 1
        cut = length - kept
        most = cut if kept else max(length, shortest)
        for other in range(1, min(most, length)):
            if source[other:] in index:
                most = other
                break
        if kept and (cut == 0 or kept <= COMPARED):
            best[number], most = index[source[:kept]], min(most, cut - 1)
        limits[number] = most
    return best, limits
