"""The tokens of a vocabulary in the order of their bytes: every prefix is a range."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.vocabulary import Vocabulary

END = 256  # the place of "the text ends here" beside the 256 bytes


class ByteTrie:
    """Tokens sorted by their bytes. Special tokens and padding ids, which spell nothing, are left out.

    Attributes:
        ids: token ids in that order, ``[tokens]``.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.join = vocabulary.join
        spelled = sorted((text, number) for number, text in enumerate(vocabulary.token_bytes) if text)
        self._spelled = [text for text, _ in spelled]
        self.ids = np.array([number for _, number in spelled], dtype=np.int64)
        self._length = np.array([len(text) for text in self._spelled], dtype=np.int64)
        self._offset = np.concatenate([[0], np.cumsum(self._length)])
        self._letters = np.frombuffer(b"".join(self._spelled) + b"\0", dtype=np.uint8)
        self.range = lru_cache(maxsize=4096)(self._range)
        self.longest = int(self._length.max(initial=0))

    def _range(self, prefix: bytes) -> tuple[int, int]:
        """Where the tokens that begin with these bytes lie: ``[low, high)``."""
        after = prefix.rstrip(b"\xff")
        after = after[:-1] + bytes([after[-1] + 1]) if after else b""
        low = bisect_left(self._spelled, prefix)
        return low, bisect_left(self._spelled, after, low) if after else len(self._spelled)

    def exact(self, text: bytes) -> NDArray[np.int64]:
        """The ids that spell just these bytes: the first of their range."""
        low, high = self.range(text)
        stop = low
        while stop < high and self._length[stop] == len(text):
            stop += 1
        return self.ids[low:stop]

    def next_byte(self, low: int, high: int, depth: int) -> NDArray[np.int64]:
        """The byte that each token of a range has at a depth; END where it is no longer than that."""
        index = np.minimum(self._offset[low:high] + depth, len(self._letters) - 1)
        return np.where(self._length[low:high] > depth, self._letters[index].astype(np.int64), END)
