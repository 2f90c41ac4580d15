"""The tokens of a vocabulary sorted by their bytes, so that the tokens with a common prefix form a range."""

from __future__ import annotations

import functools
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

END = 256  # index of the end of the text, after the 256 bytes


def _order(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the ids of the tokens with bytes, in the order of their bytes."""
    pairs = sorted((text, number) for number, text in enumerate(vocabulary.token_bytes) if text)
    return np.array([number for _, number in pairs], dtype=np.int64)


class ByteTrie:
    """Tokens sorted by their bytes. Special tokens and absent ids, which have no bytes, are left out.

    Args:
        vocabulary: the tokens as bytes.
        tables: the tokenizer's tables; None: everything is computed.

    Attributes:
        ids: token ids in the order of their bytes, int64 ``[tokens]``.
        longest: number of bytes of the longest token.
        join: bytes of a sequence of tokens; see `Vocabulary.join`.
        range: cached; the range ``[low, high)`` in ``ids`` of the tokens that start with a prefix.
    """

    def __init__(self, vocabulary: Vocabulary, tables: TokenizerTables | None = None) -> None:
        self.join = vocabulary.join
        order = functools.partial(_order, vocabulary)
        self.ids = order() if tables is None else tables.array("byte_order", order)
        self._texts = [vocabulary.token_bytes[number] or b"" for number in self.ids.tolist()]
        self._lengths = np.array([len(text) for text in self._texts], dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self._lengths)])
        self._bytes = np.frombuffer(b"".join(self._texts) + b"\0", dtype=np.uint8)
        self.range = functools.lru_cache(maxsize=4096)(self._range)
        self.longest = int(self._lengths.max(initial=0))

    def _range(self, prefix: bytes) -> tuple[int, int]:
        """Return the range ``[low, high)`` of the tokens that start with a prefix."""
        after = prefix.rstrip(b"\xff")
        after = after[:-1] + bytes([after[-1] + 1]) if after else b""  # the first byte string beyond the prefix
        low = bisect_left(self._texts, prefix)
        return low, bisect_left(self._texts, after, low) if after else len(self._texts)

    def exact(self, text: bytes) -> NDArray[np.int64]:
        """Return the ids of the tokens with exactly these bytes, which come first in the range of this prefix."""
        low, high = self.range(text)
        stop = low
        while stop < high and self._lengths[stop] == len(text):
            stop += 1
        return self.ids[low:stop]

    def next_byte(self, low: int, high: int, depth: int) -> NDArray[np.int64]:
        """Return the byte at an index of each token of a range, int64 ``[high - low]``; `END` for shorter tokens.

        Args:
            low: start of the range.
            high: end of the range, exclusive.
            depth: index of the byte in a token.
        """
        index = np.minimum(self._offsets[low:high] + depth, len(self._bytes) - 1)
        return np.where(self._lengths[low:high] > depth, self._bytes[index].astype(np.int64), END)
