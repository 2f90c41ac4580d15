"""Rows that keep the main model's distribution because the ensemble only spells the same choice differently.

The released code of CoRE (arXiv:2510.13855) keeps the main model's distribution where the ensemble's choice is a
beginning of the main model's choice or the reverse, and where the main model ends the text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SpellingGuard:
    """Finds rows in which the ensemble only spells the main model's choice differently.

    Args:
        token_bytes: bytes of each main token; None for a special token.

    >>> guard = SpellingGuard([b"t", b"the", b"x"])
    >>> guard.holds(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1]))
    tensor([ True, False, False])
    """

    token_bytes: Sequence[bytes | None]

    def holds(self, main: Tensor, ensemble: Tensor, *, end_tokens: Collection[int] = ()) -> Tensor:
        """Return the rows that must keep the main model's distribution, bool ``[rows]``.

        Args:
            main: the main model's likeliest token in each row, ``[rows]``.
            ensemble: the ensemble's likeliest token in each row, ``[rows]``.
            end_tokens: main tokens that end a text.
        """
        pairs = zip(main.tolist(), ensemble.tolist(), strict=True)
        return torch.tensor([self._holds(*pair, end_tokens) for pair in pairs], dtype=torch.bool, device=main.device)

    def _holds(self, main: int, ensemble: int, end_tokens: Collection[int]) -> bool:
        """Return whether one token of the ensemble is another spelling of one token of the main model."""
        if main == ensemble:
            return False
        if main in end_tokens:
            return True
        first, second = (self.token_bytes[t] if t < len(self.token_bytes) else None for t in (main, ensemble))
        return bool(first and second and (first.startswith(second) or second.startswith(first)))
