"""Where a phrase began, found by looking at every place: the slow reference of `rewind`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any


def began(tokens: Sequence[bytes], phrases: Sequence[str], fold: Any = str) -> int | None:
    """The token in which the last-beginning phrase that ends in the last token began, by looking at every place."""
    owners = [number for number, data in enumerate(tokens) for _ in data]
    whole, before = b"".join(tokens), b"".join(tokens[:-1])
    found = []
    for start, stop in itertools.combinations(range(len(whole) + 1), 2):
        try:
            part = whole[start:stop].decode()
        except UnicodeDecodeError:
            continue
        if stop > len(before) and fold(part) in phrases:
            found.append(start)
    return owners[max(found)] if found else None
