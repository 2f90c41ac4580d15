"""States of rows that follow from the distributions that their past tokens had; `History.folded` computes them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from torch import Tensor


class Fold(Protocol):
    """The memory of a controller: a state of each row, computed token by token from past distributions.

    Attributes:
        key: what the fold depends on besides the rows, such as settings of `generate`; states of another key are not
            used again.
    """

    @property
    def key(self) -> Hashable:
        """What the fold depends on besides the rows."""

    def initial(self) -> Tensor:
        """Return the state before the first continuation token, float64 ``[size]``."""

    def update(self, states: Tensor, logp: Tensor, tokens: Tensor, /) -> Tensor:
        """Return the states after one more token of each row, float64 ``[rows, size]``.

        Args:
            states: before the token, float64 ``[rows, size]``.
            logp: log-probabilities of the token under the preceding steps, float64 ``[rows, vocab]``.
            tokens: the token of each row, ``[rows]``.
        """
