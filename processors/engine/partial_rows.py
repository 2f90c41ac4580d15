"""Streams that answer for some rows of a batch by reading the whole batch, so that their caches keep every row.

A gated step asks its streams for the rows whose gate is open. A cache that held these rows alone would read the other
rows from their prompts again as soon as their gates open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

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
    """Base class of streams whose answers for a `Part` come from the whole batch.

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

    @contextmanager
    def serving(self, part: Part) -> Iterator[None]:
        """Recognise a part of a batch inside this block."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before


def over_whole_batch(read: Read) -> Read:
    """Decorate a method ``(rows, ...) -> [rows, ...]`` of a `PartialRows` that reads the whole batch for a part."""

    @functools.wraps(read)
    def method(self: Any, rows: Tensor, *rest: Any) -> Tensor:
        part = self._part
        if part is None or part.rows is not rows:
            return read(self, rows, *rest)
        return method(self, part.whole, *rest)[part.numbers]

    return method  # type: ignore[return-value]


@contextmanager
def parts_of(streams: Sequence[Any], part: Part) -> Iterator[None]:
    """Let the streams that can recognise a part of a batch inside this block; others get the rows of the part."""
    with ExitStack() as stack:
        for stream in streams:
            if isinstance(stream, PartialRows):
                stack.enter_context(stream.serving(part))
        yield
