"""A text scored under a chain: log-probabilities of its tokens. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """One option under a chain.

    Attributes:
        logp: natural log-probability of each of its tokens; -inf where the chain makes it impossible.
        greedy: whether each of them is the likeliest one.
        bytes: length of the option in UTF-8.
    """

    logp: tuple[float, ...]
    greedy: tuple[bool, ...]
    bytes: int

    @property
    def total(self) -> float:
        """Natural log-probability of the whole option."""
        return float(sum(self.logp))
