"""Looking n-grams up for a whole batch: binary searches in sorted arrays, with no loop over rows or tokens.

An n-gram is an entry of a sorted array; `logitkit.processors.ngram.counting` has the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitkit.processors.ngram.counting import Level

UNSEEN = -1  # a context that never occurs
NONE = -2  # no context: too few tokens, or a special token among them


class NgramIndex:
    """N-grams of orders 1 to n.

    Args:
        levels: one for each order, as `counting.count` makes them.
        size: number of ids of the tokenizer.
        base: one more than the largest id in the keys.
        special: ids that no n-gram holds.
    """

    def __init__(self, levels: Sequence[Level], *, size: int, base: int, special: Sequence[int]) -> None:
        self.levels = tuple(Level(*(_tensor(part) for part in (v.keys, v.counts, v.starts))) for v in levels)
        self.size, self.base = size, base
        self.special = torch.as_tensor(sorted(special), dtype=torch.long)

    @property
    def orders(self) -> int:
        """The longest n-gram."""
        return len(self.levels)

    @property
    def groups(self) -> int:
        """How many corpora lie side by side."""
        return len(self.levels[0].starts) - 1

    def find(self, order: int, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Return the entries of n-grams, -1 where one does not occur.

        Args:
            order: of the n-grams.
            contexts: entries of order - 1 (groups at order 1), below 0 where there is none; any shape.
            tokens: what follows; same shape.
        """
        keys = self.levels[order - 1].keys
        if not len(keys):
            return torch.full_like(tokens, UNSEEN)
        wanted = torch.add(tokens, contexts, alpha=self.base)
        place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        there = (keys[place] == wanted) & (contexts >= 0) & (tokens >= 0) & (tokens < self.base)
        return torch.where(there, place, UNSEEN)

    def contexts(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        """Find the contexts that rows of tokens end in.

        Args:
            ids: ``[rows, length]``; ids below zero, special, or beyond the table break a context.
            groups: which corpus each row is to be looked up in, ``[rows]``; None: the first.

        Returns:
            ``[rows, orders]`` on the device of ``ids`` and of the table: at ``[r, m - 1]`` the context for n-grams of
            order m, `UNSEEN` where its tokens never occur, `NONE` where there are too few tokens.
        """
        rows, width = ids.shape[0], min(ids.shape[1], self.orders - 1)
        found = ids.new_full((rows, self.orders), NONE)
        found[:, 0] = 0 if groups is None else groups
        if not width:
            return found
        tail = ids[:, ids.shape[1] - width :]
        state = self._singles[tail.clamp(-1, self.base)]  # [rows, width]
        broken = state == NONE
        if self.groups > 1:
            state = self.find(1, found[:, :1].expand(rows, width), tail).masked_fill(broken, NONE)
        found[:, 1] = state[:, -1]
        for length in range(2, width + 1):  # all contexts grow by one token together
            state = self.find(length, state[:, :-1], tail[:, length - 1 :])
            found[:, length] = torch.where(broken[:, width - length :].any(-1), NONE, state[:, -1])
        return found

    @cached_property
    def _singles(self) -> Tensor:
        """The level-1 entry of each id in the first group, ``[base + 2]``; `NONE` where special, beyond, or below."""
        entries: Tensor = self.levels[0].keys.new_full((self.base + 2,), UNSEEN)  # the last stands for ids below zero
        first = self.levels[0].keys[: int(self.levels[0].starts[1])]
        entries[first] = torch.arange(len(first), device=first.device)
        entries[self.special.to(first.device)] = NONE
        entries[self.base :] = NONE
        return entries

    def followers(self, order: int, contexts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """List everything that follows contexts.

        Args:
            order: of the n-grams.
            contexts: for this order, ``[rows]``.

        Returns:
            rows, tokens and entries, each ``[followers]``; tokens outside the tokenizer are left out by no one here.
        """
        level = self.levels[order - 1]
        if not len(level):
            none = contexts.new_zeros(0)
            return none, none, none
        if len(contexts) == 1:  # one range needs no gathering
            at = int(contexts)
            begin, end = level.starts[at : at + 2].tolist() if at >= 0 else (0, 0)
            entries = torch.arange(begin, end, device=contexts.device)
            return torch.zeros_like(entries), level.keys[begin:end] - at * self.base, entries
        contexts = contexts.clamp(min=-1)  # from -1 the range runs backwards, from the end to 0, and is empty
        begin = level.starts[contexts]
        lengths = (level.starts[contexts + 1] - begin).clamp_(min=0)
        rows = torch.repeat_interleave(lengths)
        offset = begin - lengths.cumsum(0) + lengths
        entries = offset.index_select(0, rows) + torch.arange(len(rows), device=rows.device)
        tokens = level.keys.index_select(0, entries) - (contexts * self.base).index_select(0, rows)
        return rows, tokens, entries

    @cached_property
    def suffixes(self) -> list[Tensor]:
        """For each order from 2 the entry of every n-gram without its first token, -1 where it does not occur."""
        found: list[Tensor] = []
        for order, level in enumerate(self.levels[1:], 2):
            parents, tokens = level.keys // self.base, level.keys % self.base
            first = self.levels[0].keys // self.base  # the group of each token
            shorter = first[parents] if order == 2 else found[-1][parents]
            found.append(self.find(order - 1, shorter, tokens))
        return found


def _tensor(part: Any) -> Tensor | None:
    return torch.from_numpy(part) if isinstance(part, np.ndarray) else part
