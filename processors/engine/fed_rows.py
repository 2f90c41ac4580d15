"""What a forward of a `ForwardPlan` computed besides the rows of `generate`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Fed(NamedTuple):
    """The rows of the last forward.

    Attributes:
        rows: tokens of the rows of `generate`, ``[rows, length]``, those in the cache included.
        logits: of each second stream after the last prefixes of the rows, fp32, ``[rows, kept, vocab]``.
        behind: logits after each row and the text that rode behind the row, fp32, ``[rows, vocab]``; None: no text.
    """

    rows: Tensor
    logits: tuple[Tensor, ...]
    behind: Tensor | None
