"""Sequence breakers: texts that end a repetition, searched in the bytes of a row.

A breaker may lie inside a token, fill it, or reach over several tokens. A small automaton over bytes finds all of them;
its transitions are computed once for every token, so that a step is one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.tokens.tokenizer_description import tokenizer_cache

__all__ = ["BreakerTable"]


@dataclass(frozen=True, eq=False)
class BreakerTable:
    r"""The transitions of the automaton of some breakers for each token.

    A state is the longest end of the bytes so far with which a breaker begins; state 0 is the empty one. Tokens without
    bytes, such as special tokens, lead to state 0.

    Attributes:
        following: state after each token, ``[states, tokens + 1]``; the last column is for ids beyond the tokens.
        ends: whether a breaker ends inside the token, bool ``[states, tokens + 1]``. Row 0 says which tokens contain
            a whole breaker.

    Example:
        >>> table = BreakerTable.of([b"a", b"\n", b"b\nc", b"\n\n"], ["\n\n"])
        >>> table.ends.tolist()  # state 1: the bytes so far end with one line break
        [[False, False, False, True, False], [False, True, False, True, False]]
        >>> table.following[0].tolist()
        [0, 1, 0, 1, 0]
    """

    following: Tensor
    ends: Tensor

    @classmethod
    def of(cls, token_bytes: Sequence[bytes | None], breakers: Iterable[str]) -> BreakerTable:
        """Return the table of some breakers.

        Args:
            token_bytes: bytes of each token; None for special tokens.
            breakers: texts, none empty.
        """
        wanted = sorted({breaker.encode() for breaker in breakers})
        states = sorted({breaker[:length] for breaker in wanted for length in range(len(breaker))} | {b""}, key=len)
        automaton = _Automaton(wanted, states)
        count = len(token_bytes)
        following = torch.zeros((len(states), count + 1), dtype=torch.long)
        ends = torch.zeros((len(states), count + 1), dtype=torch.bool)
        if not wanted:
            return cls(following, ends)
        begins = re.compile(b"[" + b"".join(re.escape(breaker[:1]) for breaker in wanted) + b"]")
        begun: dict[int, list[int]] = {}  # tokens by first byte
        for token, data in enumerate(token_bytes):
            if data:
                begun.setdefault(data[0], []).append(token)
                if begins.search(data):
                    following[0, token], ends[0, token] = automaton.run(0, data)
        empty = [token for token, data in enumerate(token_bytes) if data == b""]
        for state in range(1, len(states)):
            following[state], ends[state] = following[0], ends[0]
            following[state, empty] = state
            # Where the first byte leads to the state to which it leads from state 0, the rest of the token does too.
            for byte, tokens in begun.items():
                if automaton.step(state, byte) != automaton.step(0, byte):
                    for token in tokens:
                        following[state, token], ends[state, token] = automaton.run(state, token_bytes[token] or b"")
        return cls(following, ends)

    @classmethod
    def cached(cls, tokenizer: Any, token_bytes: Sequence[bytes | None], breakers: Sequence[str]) -> BreakerTable:
        """Return the table of a tokenizer's tokens, kept for as long as the tokenizer lives."""
        cache, key = tokenizer_cache(tokenizer), ("breakers", len(token_bytes), tuple(breakers))
        if key not in cache:
            cache[key] = cls.of(token_bytes, breakers)
        return cache[key]  # type: ignore[no-any-return]

    def to(self, device: torch.device) -> BreakerTable:
        """Return the table on a device."""
        return self if self.ends.device == device else BreakerTable(self.following.to(device), self.ends.to(device))

    def column(self, ids: Tensor) -> Tensor:
        """Return the column of each id; ids beyond the tokens and negative ones have the last."""
        return ids.clamp(-1, self.ends.shape[1] - 1)

    def scan(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return the state after a row of tokens, and the place of the last token in which a breaker ends, or -1.

        Args:
            ids: token ids; an id of -1 is no text, and leads to state 0.
        """
        following, ends, limit = self.following.numpy(), self.ends.numpy(), self.ends.shape[1] - 1
        state, last = 0, -1
        for place, token in enumerate(ids):
            column = limit if token < 0 or token > limit else token
            if ends[state, column]:
                last = place
            state = int(following[state, column])
        return state, last


class _Automaton:
    """The automaton of breakers over bytes, one byte at a time."""

    def __init__(self, breakers: Sequence[bytes], states: Sequence[bytes]) -> None:
        self._breakers, self._states = breakers, states
        self._numbers = {state: number for number, state in enumerate(states)}
        self._known: dict[tuple[int, int], tuple[int, bool]] = {}

    def step(self, state: int, byte: int) -> tuple[int, bool]:
        """Return the next state, and whether a breaker ends with this byte."""
        key = state, byte
        if key not in self._known:
            text = self._states[state] + bytes([byte])
            ends = any(text.endswith(breaker) for breaker in self._breakers)
            longest = next(text[start:] for start in range(len(text) + 1) if text[start:] in self._numbers)
            self._known[key] = self._numbers[longest], ends
        return self._known[key]

    def run(self, state: int, data: bytes) -> tuple[int, bool]:
        """Return the state after some bytes, and whether a breaker ends in them."""
        found = False
        for byte in data:
            state, ends = self.step(state, byte)
            found |= ends
        return state, found
