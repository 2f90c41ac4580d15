"""Streams that read more than they are asked for: the whole batch for some of its rows, and drafts behind the rows.

A gated step asks its streams for the rows whose gate is open. A cache that held these rows alone would read the other
rows from their prompts again as soon as their gates open. A search that checks drafts asks for one prefix of the drafts
after the other; one chunk answers for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Read = TypeVar("Read", bound=Callable[..., Tensor])


class Part(NamedTuple):
    """Some rows of a batch.

    Attributes:
        rows: the tensor of these rows, ``[part, length]``; recognised by identity.
        whole: the batch, ``[rows, length]``.
        numbers: number of each of the rows in the batch, ``[part]``.
    """

    rows: Tensor
    whole: Tensor
    numbers: Tensor


class PartialRows:
    """Base class of streams that read the whole batch for a `Part`, and drafts in one chunk.

    Example:
        >>> import torch
        >>> class Doubled(PartialRows):
        ...     @over_whole_batch
        ...     def __call__(self, rows):
        ...         print(len(rows), "rows read")
        ...         return 2 * rows
        >>> whole, index = torch.tensor([[1], [2], [3]]), torch.tensor([2])
        >>> stream, part = Doubled(), Part(whole[index], whole, index)
        >>> with parts_of([stream], part):
        ...     stream(part.rows)
        3 rows read
        tensor([[6]])
    """

    _part: Part | None = None
    _drafts: Tensor | None = None
    _prefetched: tuple[Tensor, Tensor] | None = None  # rows, and their logits which another forward computed

    @contextmanager
    def serving(self, part: Part) -> Iterator[None]:
        """Recognise a part of a batch inside this block."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    @contextmanager
    def expecting(self, drafts: Tensor) -> Iterator[None]:
        """Read rows with their drafts in one chunk, when the first prefix of them is asked for inside this block.

        Nothing is read unless a prefix is asked for, and nothing before it.

        Args:
            drafts: rows with the drafts behind them, ``[rows, length]``.
        """
        before, self._drafts = self._drafts, drafts
        try:
            yield
        finally:
            self._drafts = before

    def expect(self, drafts: Tensor | None) -> None:
        """Do as `expecting` does, until the next call of this method; None: expect no drafts any more."""
        self._drafts = drafts

    def _drafts_behind(self, rows: Tensor) -> Tensor | None:
        """Return the expected rows if these rows are a shorter prefix of them, else None; they are returned once."""
        drafts, width = self._drafts, rows.shape[1]
        if self._prefetched is not None and self._prefetched[0] is rows:
            return None
        if drafts is None or len(drafts) != len(rows) or not 0 < width < drafts.shape[1]:
            return None
        if not torch.equal(drafts[:, :width], rows):
            return None
        self._drafts = None
        return drafts


def over_whole_batch(read: Read) -> Read:
    """Decorate a method ``(rows, ...) -> [rows, ...]`` of a `PartialRows` that reads the whole batch for a part.

    A method of rows alone reads expected drafts with them; its class then has ``positions(rows, count)``.
    """

    @functools.wraps(read)
    def method(self: Any, rows: Tensor, *rest: Any) -> Tensor:
        part = self._part
        if part is not None and part.rows is rows:
            return method(self, part.whole, *rest)[part.numbers]
        drafts = None if rest else self._drafts_behind(rows)
        if drafts is not None:
            self.positions(drafts, drafts.shape[1] - rows.shape[1] + 1)  # what is read below is then in the cache
        return read(self, rows, *rest)

    return method  # type: ignore[return-value]


@contextmanager
def parts_of(streams: Sequence[Any], part: Part) -> Iterator[None]:
    """Let the streams that can recognise a part of a batch inside this block; others get the rows of the part."""
    with ExitStack() as stack:
        for stream in streams:
            if isinstance(stream, PartialRows):
                stack.enter_context(stream.serving(part))
        yield
