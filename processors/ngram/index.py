"""Look-up of n-grams for a whole batch by binary search in sorted arrays.

An n-gram is an entry of a sorted array; `logitkit.processors.ngram.counting` describes the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from logitkit.processors.ngram.counting import Level

UNSEEN = -1  # in place of an entry: the n-gram does not occur
NO_CONTEXT = -2  # in place of a context: the row is too short, or a special token interrupts the context
MOST_PADDED = 4096  # longest list of n-grams that is padded on the CPU, where asking for its length costs nothing


class Followers(NamedTuple):
    """The n-grams that extend the contexts of a batch, one element for each n-gram.

    Attributes:
        rows: index of the row whose context the n-gram extends, ``[followers]``.
        tokens: last token of the n-gram, ``[followers]``. Words outside the tokenizer are included.
        entries: entry of the n-gram, ``[followers]``.
    """

    rows: Tensor
    tokens: Tensor
    entries: Tensor


class PaddedFollowers(NamedTuple):
    """The n-grams that extend the contexts of a batch, as many for each row, so that no shape depends on the contexts.

    Attributes:
        tokens: last token of each n-gram, ``[rows, n]``; without meaning where ``follows`` is False.
        entries: entry of each n-gram, ``[rows, n]``; 0 where ``follows`` is False.
        follows: whether there is such an n-gram, bool ``[rows, n]``; those of a row come first.
    """

    tokens: Tensor
    entries: Tensor
    follows: Tensor


class NgramIndex:
    """N-grams of orders 1 to n.

    Args:
        levels: one for each order, as `counting.count` returns them.
        size: number of ids of the tokenizer.
        base: one more than the largest id in the keys.
        special: ids that occur in no n-gram.
    """

    def __init__(self, levels: Sequence[Level], *, size: int, base: int, special: Sequence[int]) -> None:
        self.levels = tuple(
            Level(*(_as_tensor(array) for array in (level.keys, level.counts, level.starts))) for level in levels
        )
        self.size, self.base = size, base
        self.special = torch.as_tensor(sorted(special), dtype=torch.long)

    @property
    def orders(self) -> int:
        """Length of the longest n-grams."""
        return len(self.levels)

    @property
    def groups(self) -> int:
        """Number of corpora that the table holds separately."""
        return len(self.levels[0].starts) - 1

    def find(self, order: int, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Return the entries of n-grams, `UNSEEN` for an n-gram that does not occur.

        Args:
            order: length of the n-grams.
            contexts: entries of order - 1, or groups where the order is 1; any shape. A negative number is no context.
            tokens: the token after each context; same shape.
        """
        # A negative context makes the wanted key negative, and no key is.
        outside = (tokens < 0) | (tokens >= self.base)
        return self._entries(order, contexts.masked_fill(outside, -1), tokens.masked_fill(outside, 0))

    def _entries(self, order: int, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Return the entries of n-grams as `find` does, for tokens from 0 to ``base - 1``; others have any entry."""
        keys = self.levels[order - 1].keys
        if not len(keys):
            return torch.full_like(tokens, UNSEEN)
        wanted = torch.add(tokens, contexts, alpha=self.base).contiguous()
        entries = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return entries.masked_fill_(keys[entries] != wanted, UNSEEN)

    def contexts(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        """Return the contexts at the end of rows of tokens, one for each order.

        Args:
            ids: ``[rows, length]``. A negative id, a special id, or an id outside the table interrupts a context.
            groups: the group in which each row is looked up, ``[rows]``; None: group 0.

        Returns:
            ``[rows, orders]`` on the device of ``ids`` and of the table. Element ``[r, m - 1]`` is the context for
            n-grams of order m: `UNSEEN` where its tokens do not occur, `NO_CONTEXT` where there are too few tokens.
        """
        width = min(ids.shape[1], self.orders - 1)
        columns = [ids.new_zeros(len(ids)) if groups is None else groups.to(ids)]
        if width:
            tail = ids[:, ids.shape[1] - width :].clamp(-1, self.base)
            state = self._single_entries[tail]  # [rows, width]
            interrupted = state == NO_CONTEXT
            if self.groups > 1:
                state = self._entries(1, columns[0][:, None], tail).masked_fill_(interrupted, NO_CONTEXT)
            columns.append(state[:, -1])
            for length in range(2, width + 1):  # one step extends the contexts at all positions by one token
                state = self._entries(length, state[:, :-1], tail[:, length - 1 :])
                columns.append(state[:, -1].masked_fill(interrupted[:, width - length :].any(-1), NO_CONTEXT))
        columns += [ids.new_full((len(ids),), NO_CONTEXT)] * (self.orders - len(columns))
        return torch.stack(columns, dim=1)

    @cached_property
    def _single_entries(self) -> Tensor:
        """Entry of each single id in group 0, ``[base + 2]``.

        Special ids and ids outside the table have `NO_CONTEXT`. The last element stands for negative ids.
        """
        entries: Tensor = self.levels[0].keys.new_full((self.base + 2,), UNSEEN)
        first = self.levels[0].keys[: int(self.levels[0].starts[1])]
        entries[first] = torch.arange(len(first), device=first.device)
        entries[self.special.to(first.device)] = NO_CONTEXT
        entries[self.base :] = NO_CONTEXT
        return entries

    def followers(self, order: int, contexts: Tensor) -> Followers:
        """Return all n-grams of one order that extend the contexts of a batch.

        Args:
            order: length of the n-grams.
            contexts: the contexts for this order, ``[rows]``.
        """
        level = self.levels[order - 1]
        if not len(level):
            none = contexts.new_zeros(0)
            return Followers(none, none, none)
        if len(contexts) == 1:  # slicing is faster than gathering
            context = int(contexts)
            start, end = level.starts[context : context + 2].tolist() if context >= 0 else (0, 0)
            entries = torch.arange(start, end, device=contexts.device)
            return Followers(torch.zeros_like(entries), level.keys[start:end] - context * self.base, entries)
        # Index -1 gives the last start, then the length 0 - start, which the clamp below turns into 0.
        contexts = contexts.clamp(min=-1)
        starts = level.starts[contexts]
        lengths = (level.starts[contexts + 1] - starts).clamp_(min=0)
        rows = torch.repeat_interleave(lengths)
        offsets = starts - lengths.cumsum(0) + lengths
        entries = offsets.index_select(0, rows) + torch.arange(len(rows), device=rows.device)
        tokens = level.keys.index_select(0, entries) - (contexts * self.base).index_select(0, rows)
        return Followers(rows, tokens, entries)

    def padded_followers(self, order: int, contexts: Tensor) -> PaddedFollowers:
        """Return the n-grams of `followers` with one row of the result for each context; the host reads nothing.

        The width is the largest number of n-grams that extend one context. On the CPU a width above `MOST_PADDED` is
        cut to what these contexts need, which takes less time than the padding.

        Args:
            order: length of the n-grams.
            contexts: the contexts for this order, ``[rows]``.
        """
        return self.followers_between(order, self.bounds(contexts))

    def bounds(self, contexts: Tensor) -> Tensor:
        """Return where the starts and ends of the followers of contexts stand, for `followers_between`.

        Args:
            contexts: the contexts for one order or for each order, any shape.

        Returns:
            ``[..., 2]``. Index -1 gives the last start, and 0 as the end, so that such a context has no followers.
        """
        return contexts.clamp(min=UNSEEN)[..., None] + self._ends

    def followers_between(self, order: int, bounds: Tensor) -> PaddedFollowers:
        """Return the n-grams of `padded_followers` for known `bounds` of the contexts, ``[rows, 2]``."""
        level = self.levels[order - 1]
        if not len(level):
            none = bounds.new_zeros(len(bounds), 0)
            return PaddedFollowers(none, none, none.bool())
        found = level.starts[bounds]
        starts, ends = found[:, :1], found[:, 1:]
        width = self._most_followers[order - 1]
        if width > MOST_PADDED and bounds.device.type == "cpu":
            width = max(0, int((ends - starts).max()))
        entries = starts + self._offsets[:width]  # [rows, width]
        follows = entries < ends
        entries.mul_(follows)
        return PaddedFollowers(level.keys[entries] % self.base, entries, follows)

    @cached_property
    def _ends(self) -> Tensor:
        """0 and 1: the end of the followers of a context is the start of those of the next one."""
        return torch.arange(2, device=self.levels[0].keys.device)

    @cached_property
    def _offsets(self) -> Tensor:
        """Numbers from 0, as many as the n-grams that extend one context at most."""
        return torch.arange(max(self._most_followers), device=self.levels[0].keys.device)

    @cached_property
    def _most_followers(self) -> list[int]:
        """For each order, the largest number of n-grams that extend one context."""
        return [int(level.starts.diff().max()) if len(level) else 0 for level in self.levels]

    def ngrams(self, order: int) -> Tensor:
        """Return all n-grams of one order as token ids, ``[entries, order]``."""
        entries = torch.arange(len(self.levels[order - 1]), device=self.levels[0].keys.device)
        columns = []
        for level in reversed(self.levels[:order]):
            keys = level.keys[entries]
            columns.append(keys % self.base)
            entries = keys // self.base
        return torch.stack(columns[::-1], dim=1)

    @cached_property
    def suffixes(self) -> list[Tensor]:
        """For each order from 2, the entry of every n-gram without its first token; `UNSEEN` if it has no entry."""
        suffixes: list[Tensor] = []
        for order, level in enumerate(self.levels[1:], 2):
            parents, tokens = level.keys // self.base, level.keys % self.base
            groups = self.levels[0].keys // self.base  # group of each single token
            shorter = groups[parents] if order == 2 else suffixes[-1][parents]
            suffixes.append(self.find(order - 1, shorter, tokens))
        return suffixes


def _as_tensor(array: Any) -> Tensor | None:
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array
