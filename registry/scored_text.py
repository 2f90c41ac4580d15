"""A text scored under a chain: the log-probabilities of its tokens. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """The log-probabilities of one text after its prompt.

    Attributes:
        logp: natural log-probability of each token, in nats; -inf where the chain makes the token impossible.
        greedy: whether each token is the likeliest at its place.
        bytes: length of the text in UTF-8.

    >>> Scored(logp=(-1.0, -0.5), greedy=(True, False), bytes=4).total
    -1.5
    """

    logp: tuple[float, ...]
    greedy: tuple[bool, ...]
    bytes: int

    @property
    def total(self) -> float:
        """Natural log-probability of the whole text, in nats."""
        return float(sum(self.logp))
