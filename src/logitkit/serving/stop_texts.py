"""Stop strings in a text that grows."""

from __future__ import annotations

from collections.abc import Sequence


def first_stop(text: str, stops: Sequence[str], begin: int = 0) -> int | None:
    """Return where the first stop string in a text begins, or None.

    Args:
        text: the text.
        stops: the stop strings, none empty.
        begin: where to look from.

    >>> first_stop("one END two", ["END", "two"]), first_stop("one", ["END"])
    (4, None)
    """
    found = [place for place in (text.find(stop, begin) for stop in stops) if place >= 0]
    return min(found, default=None)


def withheld(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of a stop string.

    >>> withheld("one EN", ["END"]), withheld("one ENE", ["END", "NEXT"]), withheld("one", ["END"])
    (2, 2, 0)
    """
    longest = min(len(text), max((len(stop) - 1 for stop in stops), default=0))
    return next((size for size in range(longest, 0, -1) if any(stop.startswith(text[-size:]) for stop in stops)), 0)
