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

    The first column of each table is for what is no text, the last one for ids beyond the tokens; see `column`.

    Attributes:
        following: state after each token, ``[states, tokens + 2]``.
        ends: whether a breaker ends inside the token, bool ``[states, tokens + 2]``. Row 0 says which tokens contain
            a whole breaker.
        weight: 0 for what is no text, for tokens that contain a breaker, and for ids beyond the tokens; 1 for the
            others; fp32 ``[tokens + 2]``. Without tokens, every id has weight 1.

    Example:
        >>> table = BreakerTable.of([b"a", b"\n", b"b\nc", b"\n\n"], ["\n\n"])
        >>> table.ends[:, 1:-1].tolist()  # state 1: the bytes so far end with one line break
        [[False, False, False, True], [False, True, False, True]]
        >>> table.following[0, 1:-1].tolist()
        [0, 1, 0, 1]
    """

    following: Tensor
    ends: Tensor
    weight: Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens of the vocabulary; 0: unknown."""
        return self.ends.shape[1] - 2

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
        following = torch.zeros((len(states), count + 2), dtype=torch.long)
        ends = torch.zeros((len(states), count + 2), dtype=torch.bool)
        if wanted:
            automaton.fill(following[:, 1:-1], ends[:, 1:-1], token_bytes)
        weight = (~ends[0]).float()
        weight[0] = 0.0
        weight[-1] = 0.0 if count else 1.0
        return cls(following, ends, weight)

    @classmethod
    def cached(cls, tokenizer: Any, token_bytes: Sequence[bytes | None], breakers: Sequence[str]) -> BreakerTable:
        """Return the table of a tokenizer's tokens, kept for as long as the tokenizer lives."""
        cache, key = tokenizer_cache(tokenizer), ("breakers", len(token_bytes), tuple(breakers))
        if key not in cache:
            cache[key] = cls.of(token_bytes, breakers)
        return cache[key]  # type: ignore[no-any-return]

    def to(self, device: torch.device) -> BreakerTable:
        """Return the table on a device."""
        if self.ends.device == device:
            return self
        return BreakerTable(*(table.to(device) for table in (self.following, self.ends, self.weight)))

    def column(self, ids: Tensor) -> Tensor:
        """Return the column of each id: 0 for a negative one, which is no text, the last for one beyond the tokens."""
        return ids.clamp(-1, self.tokens) + 1

    def scan(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return the state after a row of tokens, and the place of the last token in which a breaker ends, or -1.

        Args:
            ids: token ids; a negative one is no text, and leads to state 0.
        """
        following, ends = self.following.numpy(), self.ends.numpy()
        state, last = 0, -1
        for place, column in enumerate(self.column(torch.tensor(ids)).tolist()):
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

    def fill(self, following: Tensor, ends: Tensor, token_bytes: Sequence[bytes | None]) -> None:
        """Fill in the state after each token, and whether a breaker ends in it, from each state.

        Args:
            following: int64 ``[states, tokens]``, all 0.
            ends: bool ``[states, tokens]``, all False.
            token_bytes: bytes of each token; None for special tokens.
        """
        begins = re.compile(b"[" + b"".join(re.escape(breaker[:1]) for breaker in self._breakers) + b"]")
        begun: dict[int, list[int]] = {}  # tokens by first byte
        for token, data in enumerate(token_bytes):
            if data:
                begun.setdefault(data[0], []).append(token)
                if begins.search(data):
                    following[0, token], ends[0, token] = self.run(0, data)
        empty = [token for token, data in enumerate(token_bytes) if data == b""]
        for state in range(1, len(self._states)):
            following[state], ends[state] = following[0], ends[0]
            following[state, empty] = state
            # Where the first byte leads to the state to which it leads from state 0, the rest of the token does too.
            for byte, tokens in begun.items():
                if self.step(state, byte) != self.step(0, byte):
                    for token in tokens:
                        following[state, token], ends[state, token] = self.run(state, token_bytes[token] or b"")
