"""Which tokens may stand side by side inside one word of a BPE tokenizer: the pairwise merge rule.

Byte-pair encoding writes ``left right`` only if no merge across their seam would have come first. Looking at
the tokens on the seam's two spines decides it, with no encoding (Vieira et al., arXiv:2412.03719, use the same
fact; Hayase et al., arXiv:2506.14123, section 3). Two changes from the published rules: the leftmost of two
equal merges comes first, so the tie is not symmetric; and a merge counts from when its parts exist, since
merge lists converted from SentencePiece hold pairs that are ranked before their own parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEVER = int(np.iinfo(np.int64).max)
_WIDE = 1 << 24  # more than any list of merges holds


class MergeRule:
    """The pairwise rule of one BPE model.

    Args:
        vocabulary: id of each token as the model spells it.
        merges: pairs in order of rank, as the model spells them.

    Attributes:
        reachable: which ids the model can produce by merging, ``[vocab]``; single characters are.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[Any]) -> None:
        self.size = max(vocabulary.values(), default=-1) + 1
        self._pairs: dict[tuple[int, int], tuple[int, int]] = {}  # (left, right) -> rank, merged
        for rank, merge in enumerate(merges):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            ids = vocabulary.get(left), vocabulary.get(right), vocabulary.get(left + right)
            if None not in ids:
                self._pairs.setdefault((ids[0], ids[1]), (rank, ids[2]))  # type: ignore[arg-type]
        self._made: dict[int, tuple[int, int]] = {}  # token -> its two parts
        self._time = [0] * self.size  # when it is made: the latest rank among its merges
        self._absorbed = [0] * self.size  # when its last merge comes
        self._reached = {number for token, number in vocabulary.items() if len(token) == 1}
        self._derive_runs(vocabulary)
        self._derive()
        self.reachable = np.zeros(self.size, dtype=bool)
        self.reachable[list(self._reached)] = True
        self._index()

    def allows(self, left: int, right: int) -> bool:
        """Say whether ``left right`` can stand inside one word."""
        return bool(self.reachable[left] and self.reachable[right]) and self._first(left, right) == NEVER

    def successors(self, left: int) -> NDArray[np.bool_]:
        """Say of every token whether it may follow ``left`` inside one word, ``[vocab]``."""
        allowed = self.reachable.copy()
        allowed[self._forbidden(left)] = False
        return allowed if self.reachable[left] else np.zeros_like(allowed)

    def _derive_runs(self, vocabulary: Mapping[str, int]) -> None:
        """Make tokens of one repeated character as they are made: by merging, leftmost first.

        Lists from SentencePiece rank long runs before short ones; then parts and whole come at one time, and
        when does not tell how. There are few such tokens.
        """
        runs = sorted((token for token in vocabulary if len(token) > 1 and len(set(token)) == 1), key=len)
        for token in runs:
            ids = [vocabulary.get(token[0], -1)] * len(token)
            while len(ids) > 1:
                ranked = [(self._pairs[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in self._pairs]
                if not ranked:
                    break
                (rank, merged), place = min(ranked)
                if len(ids) == 2:
                    self._make(rank, ids[0], ids[1], merged)
                ids[place : place + 2] = [merged]

    def _make(self, rank: int, left: int, right: int, merged: int) -> None:
        """Note how a token is made."""
        self._reached.add(merged)
        self._made[merged] = left, right
        self._time[merged] = max(rank, self._time[left], self._time[right])
        self._absorbed[merged] = self._time[merged] * _WIDE + rank

    def _derive(self) -> None:
        """Find how each token is really made: by the first merge that no other one across its seam precedes."""
        todo = [(rank, left, right, merged) for (left, right), (rank, merged) in self._pairs.items()]
        todo.sort()
        while todo:
            later = []
            for rank, left, right, merged in todo:
                if merged in self._reached:
                    continue
                if left not in self._reached or right not in self._reached:
                    later.append((rank, left, right, merged))  # its parts may be ranked after it
                elif self._first(left, right) == self._when(left, right, rank):
                    self._make(rank, left, right, merged)
            if len(later) == len(todo):
                break
            todo = later

    def _when(self, left: int, right: int, rank: int) -> int:
        """When a merge comes: after its parts exist, then by rank."""
        return max(rank, self._time[left], self._time[right]) * _WIDE + rank

    def _spine(self, token: int, side: int) -> list[tuple[int, int]]:
        """The tokens that have stood at one end of this one (0 left, 1 right), each with when it was absorbed."""
        spine = [(token, NEVER)]
        while token in self._made:
            when = self._absorbed[token]
            token = self._made[token][side]
            spine.append((token, when))
        return spine

    def _first(self, left: int, right: int) -> int:
        """When the first merge across the seam comes; NEVER if there is none."""
        first = NEVER
        ends = self._spine(right, 0)
        for last, until in self._spine(left, 1):
            for begin, before in ends:
                found = self._pairs.get((last, begin))
                if found is not None:
                    when = self._when(last, begin, found[0])
                    if when < until and when <= before:
                        first = min(first, when)
        return first

    def _index(self) -> None:
        """Lay out pairs by their left token, and left spines by the token on them, as sorted arrays."""
        rows = sorted((left, self._when(left, right, rank), right) for (left, right), (rank, _) in self._pairs.items())
        self._left = np.array([row[0] for row in rows], dtype=np.int64)
        self._pair_when = np.array([row[1] for row in rows], dtype=np.int64)
        self._right = np.array([row[2] for row in rows], dtype=np.int64)
        tokens = np.flatnonzero(self.reachable).tolist()
        spines = [(begin, -when, token) for token in tokens for begin, when in self._spine(token, 0)]
        order = sorted(spines)
        self._begin = np.array([row[0] for row in order], dtype=np.int64)
        self._until = np.array([-row[1] for row in order], dtype=np.int64)  # falling within each begin
        self._token = np.array([row[2] for row in order], dtype=np.int64)
        self._starts = np.searchsorted(self._begin, np.arange(self.size + 1))
        self._forbidden = lru_cache(maxsize=512)(self._find_forbidden)

    def _find_forbidden(self, left: int) -> NDArray[np.int64]:
        """The tokens that a merge across the seam rules out after ``left``."""
        found = []
        for last, until in self._spine(left, 1):
            low, high = np.searchsorted(self._left, [last, last + 1])
            early = self._pair_when[low:high] < until
            for begin, when in zip(self._right[low:high][early], self._pair_when[low:high][early], strict=True):
                start, stop = self._starts[begin], self._starts[begin + 1]
                # absorbed at ``when`` or later: the front of a falling list
                count = np.searchsorted(-self._until[start:stop], -when, side="right")
                found.append(self._token[start : start + count])
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
