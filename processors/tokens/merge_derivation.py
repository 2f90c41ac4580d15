"""The merges that produce each token of a BPE model, derived from its list of merges.

Merges of a word are ordered by *time*: first by the time at which both parts exist, then by rank.
`logitkit.processors.tokens.merge_rule` explains the rule and names its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEVER = int(np.iinfo(np.int64).max)
_MOST_MERGES = 1 << 24  # more than any merge list holds


class MergeDerivation:
    """The merges that produce each token of one BPE model.

    Args:
        vocabulary: id of each token, tokens as the model writes them.
        merges: pairs of tokens in order of rank, as the model writes them: lists of two, or strings with a space.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[Any]) -> None:
        self.size = max(vocabulary.values(), default=-1) + 1
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}  # (left, right) -> rank, merged token
        for rank, merge in enumerate(merges):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            ids = vocabulary.get(left), vocabulary.get(right), vocabulary.get(left + right)
            if None not in ids:
                self._merges.setdefault((ids[0], ids[1]), (rank, ids[2]))  # type: ignore[arg-type]
        self._parts: dict[int, tuple[int, int]] = {}  # token -> the two tokens that it is merged from
        self._latest_rank = [0] * self.size  # largest rank of the merges that produce a token
        self._merge_time = [0] * self.size  # time of the last merge that produces a token
        self._reached = {number for token, number in vocabulary.items() if len(token) == 1}
        self._derive_runs(vocabulary)
        self._derive()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `MergeRule` needs, as arrays.

        Returns:
            ``reachable``, bool ``[vocab]``: ids that merging can produce. ``parts``, int32 ``[vocab, 2]``: the two
            tokens that each token is merged from, or -1. ``times``, ``[vocab]``: time of that merge. ``left``,
            ``left_time`` and ``right``, ``[merges]``: all merges, sorted. ``begin``, ``until`` and ``token``: the left
            ends of all tokens (`_spine`), sorted by ``begin``, then by descending ``until``. Times are int32, with the
            order of the times of the merges; the largest is that of `NEVER`.
        """
        reachable = np.zeros(self.size, dtype=bool)
        reachable[list(self._reached)] = True
        parts = np.full((self.size, 2), -1, dtype=np.int32)
        if self._parts:
            parts[list(self._parts)] = list(self._parts.values())
        merges = sorted(
            (left, self._time(left, right, rank), right) for (left, right), (rank, _) in self._merges.items()
        )
        tokens = np.flatnonzero(reachable).tolist()
        spines = sorted((begin, -until, token) for token in tokens for begin, until in self._spine(token, 0))
        merge_time = np.array(self._merge_time, dtype=np.int64)
        left_time = np.array([row[1] for row in merges], dtype=np.int64)
        until = np.array([-row[1] for row in spines], dtype=np.int64)
        ordered = np.unique(np.concatenate([merge_time, left_time, until, [NEVER]]))

        def ranked(times: NDArray[np.int64]) -> NDArray[np.int32]:
            return np.searchsorted(ordered, times).astype(np.int32)

        return {
            "reachable": reachable,
            "parts": parts,
            "times": ranked(merge_time),
            "never": ranked(np.array([NEVER])),
            "left": np.array([row[0] for row in merges], dtype=np.int32),
            "left_time": ranked(left_time),
            "right": np.array([row[2] for row in merges], dtype=np.int32),
            "begin": np.array([row[0] for row in spines], dtype=np.int32),
            "until": ranked(until),
            "token": np.array([row[2] for row in spines], dtype=np.int32),
        }

    def _derive_runs(self, vocabulary: Mapping[str, int]) -> None:
        """Derive the parts of tokens of one repeated character by carrying out their merges, leftmost first.

        Merge lists from SentencePiece rank long runs before short ones. All merges of a run then have the same time,
        and times do not order these merges. Vocabularies have few such tokens.
        """
        runs = sorted((token for token in vocabulary if len(token) > 1 and len(set(token)) == 1), key=len)
        for token in runs:
            ids = [vocabulary.get(token[0], -1)] * len(token)
            while len(ids) > 1:
                possible = [
                    (self._merges[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in self._merges
                ]
                if not possible:
                    break
                (rank, merged), place = min(possible)
                if len(ids) == 2:
                    self._record(rank, ids[0], ids[1], merged)
                ids[place : place + 2] = [merged]

    def _record(self, rank: int, left: int, right: int, merged: int) -> None:
        """Record the parts and the merge time of a token."""
        self._reached.add(merged)
        self._parts[merged] = left, right
        self._latest_rank[merged] = max(rank, self._latest_rank[left], self._latest_rank[right])
        self._merge_time[merged] = self._latest_rank[merged] * _MOST_MERGES + rank

    def _derive(self) -> None:
        """Derive the parts of every token.

        A token is made by the merge that no other merge across the boundary of its two parts precedes.
        """
        pending = sorted((rank, left, right, merged) for (left, right), (rank, merged) in self._merges.items())
        while pending:
            postponed = []
            for rank, left, right, merged in pending:
                if merged in self._reached:
                    continue
                if left not in self._reached or right not in self._reached:
                    postponed.append((rank, left, right, merged))  # the merge of a part may have a later rank
                elif self.first_merge(left, right) == self._time(left, right, rank):
                    self._record(rank, left, right, merged)
            if len(postponed) == len(pending):
                break
            pending = postponed

    def _time(self, left: int, right: int, rank: int) -> int:
        """Return the time of a merge."""
        return max(rank, self._latest_rank[left], self._latest_rank[right]) * _MOST_MERGES + rank

    def _spine(self, token: int, side: int) -> list[tuple[int, int]]:
        """Return the intermediate tokens at one end of a token while its merges are carried out, last one first.

        Args:
            token: the token.
            side: 0 for its left end, 1 for its right end.

        Returns:
            Each intermediate token, with the time at which it is merged into the preceding element of the list. The
            first element is the token itself, with the time `NEVER`.
        """
        spine = [(token, NEVER)]
        while token in self._parts:
            time = self._merge_time[token]
            token = self._parts[token][side]
            spine.append((token, time))
        return spine

    def first_merge(self, left: int, right: int) -> int:
        """Return the time of the first merge across the boundary between two tokens; `NEVER` without such a merge."""
        first = NEVER
        right_spine = self._spine(right, 0)
        for last, last_until in self._spine(left, 1):
            for begin, begin_until in right_spine:
                merge = self._merges.get((last, begin))
                if merge is not None:
                    time = self._time(last, begin, merge[0])
                    # At equal times the leftmost merge comes first: a merge inside ``left`` before a merge across the
                    # boundary, and a merge across the boundary before a merge inside ``right``.
                    if time < last_until and time <= begin_until:
                        first = min(first, time)
        return first
