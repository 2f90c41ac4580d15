"""Hard constraints on the next token, for samplers and searches that look ahead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Constraint(Protocol):
    """Decides which tokens may follow a row.

    The answer depends on the tokens of the row alone, so that a search may ask about rows in any order, twice, or not
    at all. Padding that `generate` appends to a finished row is part of the row.

    Example:
        >>> isinstance(AllowedTokens([0, 2], vocab=4), Constraint)
        True
    """

    def allowed(self, rows: Tensor, /) -> Tensor:
        """Return whether each token may follow each row.

        Args:
            rows: token ids, ``[rows, length]``: bound prompt and continuation.

        Returns:
            bool, ``[rows, vocab]``, on the device of the rows; ``vocab`` is the width of the scores. A row without
            any allowed token is a dead end: samplers refuse the row by name, and searches drop the row.
        """


class AllowedTokens:
    """A fixed set of tokens may follow any row.

    Args:
        tokens: token ids, each below ``vocab``.
        vocab: width of the scores.

    Example:
        >>> import torch
        >>> AllowedTokens([0, 2], vocab=4).allowed(torch.tensor([[3, 1]]))
        tensor([[ True, False,  True, False]])
    """

    def __init__(self, tokens: Iterable[int], *, vocab: int) -> None:
        self.tokens, self.vocab = tuple(sorted(set(tokens))), vocab
        self._mask = torch.zeros(vocab, dtype=torch.bool)
        self._mask[list(self.tokens)] = True

    def allowed(self, rows: Tensor) -> Tensor:
        """Return the same mask for each row, bool ``[rows, vocab]``."""
        return self._mask.to(rows.device).expand(len(rows), self.vocab)
