"""Second streams: next-token logits of another model or another prompt for the rows of a `generate` call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from logitkit.params import Resource


@runtime_checkable
class Stream(Protocol):
    """Next-token logits for the rows of a `generate` call, from another model or under another prompt.

    A row is a sequence of the batch as `generate` holds it: the bound prompt, padding included, then the
    continuation. An answer depends on the tokens of the rows alone. A stream may cache, but rows may be permuted,
    shortened, repeated or new at any call. `as_stream` makes a stream of a plain function.

    Attributes:
        fusable: whether the generating model can compute the logits in its own forward. True for a decoder-only
            reader that reads the tokens of the rows after its own prompt; such a stream implements
            `FusableStream`. False for every other stream.

    Example:
        >>> import torch
        >>> stream = as_stream(lambda rows: torch.zeros(len(rows), 3))
        >>> isinstance(stream, Stream), stream.fusable
        (True, False)
    """

    @property
    def fusable(self) -> bool:
        """Whether the generating model can compute the logits in its own forward."""

    def __call__(self, rows: Tensor, /) -> Tensor:
        """Return fp32 logits of the token after each row, ``[rows, vocab]``, on the device of the rows.

        Args:
            rows: token ids, ``[rows, length]``.
        """

    def positions(self, rows: Tensor, count: int, /) -> Tensor:
        """Return fp32 logits after each of the last ``count`` prefixes of the rows, ``[rows, count, vocab]``.

        The last position is the whole row, so ``positions(rows, 1)[:, 0]`` equals ``stream(rows)``.

        Args:
            rows: token ids, ``[rows, length]``.
            count: 1 up to the length of the continuation plus 1; the first prefix is then the prompt.
        """

    def where(self, wanted: Tensor, rows: Tensor, /) -> Tensor | None:
        """Return the logits of all rows if any row wants them, else None without a forward.

        Args:
            wanted: bool, ``[rows]``.
            rows: token ids, ``[rows, length]``.
        """


class FusableStream(Stream, Protocol):
    """A stream whose logits the generating model can compute in its own forward.

    Attributes:
        model: the model of the stream; fusing needs the generating model itself.
        width: length of the longest prompt of the stream, in tokens.
        takes_positions: whether the model's forward takes ``position_ids``.
        prefetch_used: whether the prefetched logits were requested; a bool, or a bool tensor on the device.
    """

    model: Any
    takes_positions: bool
    prefetch_used: bool | Tensor

    @property
    def width(self) -> int:
        """Length of the longest prompt of the stream, in tokens."""

    def own_rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stream's prompts of these prompt numbers: ids and mask, ``[rows, width]``, left-padded."""

    def set_prefetched(self, rows: Tensor, logits: Tensor) -> None:
        """Store logits ``[rows, vocab]`` that another forward computed for these rows."""

    def clear_prefetched(self) -> None:
        """Drop the stored logits."""


StreamLike: TypeAlias = Annotated[Stream | Callable[[Tensor], Tensor], Resource()]
"""What a constructor accepts as a second stream; `as_stream` turns it into a `Stream`."""


@dataclass(frozen=True)
class FunctionStream:
    """A plain function ``rows [rows, length] -> logits [rows, vocab]`` as a `Stream`.

    Args:
        function: computes logits from the tokens of the rows alone.
    """

    function: Callable[[Tensor], Tensor]
    fusable: bool = False
    why_separate: ClassVar[str] = "the streams are functions"

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the function's logits, ``[rows, vocab]``."""
        return self.function(rows)

    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Call the function once for each prefix; ``[rows, count, vocab]``."""
        return stacked_positions(self.function, rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Call the function if any row wants its logits."""
        return self.function(rows) if bool(wanted.any()) else None


def as_stream(source: Stream | Callable[[Tensor], Tensor]) -> Stream:
    """Return a `Stream`: the argument itself if it is one, else the plain function wrapped.

    Args:
        source: a `Stream`, or a function ``rows [rows, length] -> logits [rows, vocab]``.

    Example:
        >>> import torch
        >>> stream = as_stream(lambda rows: rows[:, -1:].float() * torch.tensor([[1.0, 2.0]]))
        >>> stream(torch.tensor([[7, 3]]))
        tensor([[3., 6.]])
        >>> stream.positions(torch.tensor([[7, 3]]), 2)
        tensor([[[ 7., 14.],
                 [ 3.,  6.]]])
        >>> as_stream(stream) is stream
        True
    """
    if isinstance(source, Stream):
        return source
    return FunctionStream(source)


def declared_streams(parts: Sequence[tuple[str, Any]]) -> tuple[Stream, ...]:
    """Return the second streams that ``(name, processor)`` parts declare in their ``streams``, each once."""
    return tuple(dict.fromkeys(stream for _, part in parts for stream in getattr(part, "streams", ())))


def stacked_positions(function: Callable[[Tensor], Tensor], rows: Tensor, count: int) -> Tensor:
    """Return the logits after the last ``count`` prefixes, one call each: ``[rows, count, vocab]``."""
    length = rows.shape[1]
    return torch.stack([function(rows[:, :end]) for end in range(length - count + 1, length + 1)], dim=1)
