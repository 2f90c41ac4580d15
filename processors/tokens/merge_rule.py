"""The pairwise merge rule: which tokens of a BPE tokenizer can be neighbours inside one word.

Byte-pair encoding writes the tokens ``left right`` only if no merge across their boundary precedes the merges that
produce ``left`` and ``right``. The intermediate tokens at the boundary decide this without encoding: the tokens that
``left`` ends with and ``right`` starts with while their merges are carried out. Sources: Vieira et al.,
arXiv:2412.03719, and Hayase et al., arXiv:2506.14123, section 3.

Departures from the published rule:

- Of two merges of the same pair, the leftmost comes first. A tie therefore counts differently on the two sides.
- A merge can come only after its parts exist. Merge lists converted from SentencePiece rank some merges before the
  merges that produce their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.merge_derivation import MergeDerivation
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables

NAMES = ("reachable", "parts", "times", "never", "left", "left_time", "right", "begin", "until", "token")


class MergeRule:
    """The pairwise merge rule of one BPE model.

    Args:
        vocabulary: id of each token, tokens as the model writes them.
        merges: pairs of tokens in order of rank, as the model writes them: lists of two, or strings with a space.

    Attributes:
        reachable: ids that merging can produce, bool ``[vocab]``; single characters count.
        size: number of ids.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[Any]) -> None:
        self._use(MergeDerivation(vocabulary, merges).arrays())

    @classmethod
    def of(cls, tables: TokenizerTables) -> MergeRule:
        """Return the merge rule of a tokenizer with a BPE model, from its tables."""

        @cache
        def derived() -> dict[str, NDArray[Any]]:
            model = tables.whole["model"]
            return MergeDerivation(model["vocab"], model["merges"]).arrays()

        rule = cls.__new__(cls)
        rule._use({name: tables.array(f"merge_{name}", partial(_item, derived, name)) for name in NAMES})
        return rule

    def _use(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the arrays of `MergeDerivation`."""
        self.reachable: NDArray[np.bool_] = arrays["reachable"]
        self.size = len(self.reachable)
        self._parts, self._times = arrays["parts"], arrays["times"]
        self._left_time, self._right = arrays["left_time"], arrays["right"]
        self._never, self._token = int(arrays["never"][0]), arrays["token"]
        self._ends = _keys(arrays["begin"], arrays["until"])  # ascending
        self._starts = np.searchsorted(arrays["begin"], np.arange(self.size + 1))
        self._left_starts = np.searchsorted(arrays["left"], np.arange(self.size + 1))
        self._blocked = lru_cache(maxsize=512)(self._find_blocked)

    def allows(self, left: int, right: int) -> bool:
        """Return whether two tokens can be neighbours inside one word, in this order."""
        return bool(self.reachable[left] and self.reachable[right]) and not bool((self._blocked(left) == right).any())

    def blocked(self, left: int) -> NDArray[np.int32]:
        """Return ids that a merge keeps from following ``left`` inside one word, in no order, and some repeatedly."""
        return self._blocked(left)

    def successors(self, left: int) -> NDArray[np.bool_]:
        """Return which tokens can follow ``left`` inside one word, bool ``[vocab]``."""
        allowed = self.reachable.copy()
        allowed[self._blocked(left)] = False
        return allowed if self.reachable[left] else np.zeros_like(allowed)

    def _right_spine(self, token: int) -> list[tuple[int, int]]:
        """Return the intermediate tokens at the right end of a token and their times; see `MergeDerivation._spine`."""
        spine = [(token, self._never)]
        while self._parts[token, 1] >= 0:
            time = int(self._times[token])
            token = int(self._parts[token, 1])
            spine.append((token, time))
        return spine

    def _find_blocked(self, left: int) -> NDArray[np.int32]:
        """Return the tokens that cannot follow ``left``, because a merge across the boundary would come first."""
        begins, times = [self._right[:0]], [self._left_time[:0]]
        for last, last_until in self._right_spine(left):
            low, high = self._left_starts[last], self._left_starts[last + 1]
            early = self._left_time[low:high] < last_until
            begins.append(self._right[low:high][early])
            times.append(self._left_time[low:high][early])
        begin, time = np.concatenate(begins), np.concatenate(times)
        starts = self._starts[begin]
        # Times descend, so the tokens in which ``begin`` is merged at ``time`` or later come first.
        counts = np.searchsorted(self._ends, _keys(begin, time), side="right") - starts
        places = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        blocked: NDArray[np.int32] = self._token[places]
        return blocked


def _item(derived: Callable[[], Mapping[str, NDArray[Any]]], name: str) -> NDArray[Any]:
    """Return one of the derived arrays."""
    return derived()[name]


def _keys(begin: NDArray[np.int32], until: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return numbers in the order of ``begin``, then of descending ``until``."""
    keys: NDArray[np.int64] = (begin.astype(np.int64) << 32) + (np.iinfo(np.int32).max - until)
    return keys
