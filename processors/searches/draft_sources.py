"""Where drafts of next tokens come from without a draft model: the text so far, and the model's own predictions.

Source: GOOSE, arXiv:2604.02047. A wrong draft costs time and changes no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

SIZES = (5, 4, 3)  # of the groups of tokens that are looked up, the largest first
AGREEING = 4  # tokens behind two occurrences that must agree, so that the match counts as certain
LONG, SURE = 8, 1.0  # tokens of a long match; confidence of a match whose occurrences agree
CANDIDATES = 10  # next tokens that the table holds for each context


class Match(NamedTuple):
    """An earlier occurrence of the end of a text.

    Attributes:
        following: the tokens that follow the occurrence.
        confidence: how reliable they are, 0 to 1.
    """

    following: list[int]
    confidence: float


class ContextMatcher:
    """Finds the first earlier occurrence of the last 5, 4 or 3 tokens of a text that grows.

    The confidence is 1 where the first two occurrences are followed by the same 4 tokens; else it grows with the
    number of tokens that agree: ``0.6 n / 8`` below 8 tokens, then from 0.7 to 0.9 at 20 tokens.

    Example:
        >>> matcher = ContextMatcher()
        >>> matcher.extend([1, 2, 3, 4, 5, 9, 1, 2, 3])
        >>> matcher.match(limit=3)  # "1 2 3" at the beginning is followed by 4, 5, 9
        Match(following=[4, 5, 9], confidence=0.225)
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}  # ends of the first two occurrences of a group

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens to the text."""
        for token in tokens:
            # A group is known once a token follows it, so that the end of the text does not match itself.
            for size in SIZES:
                if len(self.tokens) >= size:
                    places = self._places.setdefault(tuple(self.tokens[-size:]), [])
                    if len(places) < 2:
                        places.append(len(self.tokens))
            self.tokens.append(token)

    def match(self, limit: int) -> Match | None:
        """Return the tokens behind the first occurrence of the end of the text, at most ``limit``; None: none."""
        for size in SIZES:
            places = self._places.get(tuple(self.tokens[-size:])) if len(self.tokens) >= size else None
            if not places:
                continue
            following = self.tokens[places[0] : places[0] + limit]
            first, *others = (self.tokens[place : place + AGREEING] for place in places)
            if first in others:
                return Match(following, SURE)
            length = self._length(places[0])
            confidence = min(0.9, 0.7 + 0.2 * (length - LONG) / 12) if length >= LONG else 0.6 * length / LONG
            return Match(following, round(confidence, 6))
        return None

    def _length(self, end: int) -> int:
        """Return how many tokens before a place equal the last tokens of the text."""
        length = 0
        while length < end and self.tokens[end - 1 - length] == self.tokens[-1 - length]:
            length += 1
        return length


class TransitionTable:
    """The likeliest next tokens after each token and each pair of tokens, as the model predicted them last.

    Example:
        >>> import torch
        >>> table = TransitionTable()
        >>> table.add([(1, 2)], torch.tensor([[0.0, 0.0, 5.0]]))
        >>> table.after(1, 2)[0][0], table.after(9, 2)[0][0], table.after(9, 1)  # a pair, a token, nothing
        (2, 2, [])
    """

    def __init__(self) -> None:
        self._tokens: dict[int, list[tuple[int, float]]] = {}
        self._pairs: dict[tuple[int, int], list[tuple[int, float]]] = {}

    def add(self, contexts: Sequence[tuple[int, int]], logits: Tensor) -> None:
        """Note predictions.

        Args:
            contexts: the last two tokens before each prediction; -1: there is none.
            logits: ``[contexts, vocab]``.
        """
        top = logits.softmax(-1).topk(min(CANDIDATES, logits.shape[-1]))
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        for (before, last), (ids, values) in zip(contexts, rows, strict=True):
            self._tokens[last] = self._pairs[before, last] = list(zip(ids, values, strict=True))

    def after(self, before: int, last: int) -> list[tuple[int, float]]:
        """Return next tokens and their probabilities, the likeliest first; those of the token alone for a new pair."""
        return self._pairs.get((before, last)) or self._tokens.get(last, [])
