"""Search for texts in the bytes of continuations, for many rows and candidates at once, on the device of the rows.

The texts are one automaton over bytes (Knuth, Morris and Pratt): a state for each number of leading bytes of a text
with which a continuation ends. Tokens of at most 16 bytes are followed byte by byte, all candidates together; where a
longer token leads is computed once for each state.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHORT = 16  # bytes of a token that are followed one by one
BYTES = 257  # the values of a byte, and the end of a token, which changes no state


class TextSearch:
    """The search for texts in the bytes of continuations.

    Args:
        texts: the texts, none empty.
        token_bytes: the bytes of each token; None or absent: no text.
        removed: number of bytes with which the continuation of each prompt spells the prompt's own end; they are
            not searched. Empty: none.

    Attributes:
        size: number of texts; the state of a row has a number for each.

    Example:
        >>> search = TextSearch(["aab"], [b"aa", b"b"])
        >>> state = search.initial(torch.tensor([0]))
        >>> for token in (0, 0, 1):  # "aaaab" ends with the text
        ...     state = search.advance(state, torch.zeros(1, 0), torch.tensor([[token]]))[:, 0]
        >>> search.missing(state)
        tensor([[0]])
    """

    def __init__(self, texts: Sequence[str], token_bytes: Sequence[bytes | None], removed: Sequence[int] = ()) -> None:
        encoded = [text.encode() for text in texts]
        self.size, skipped = len(encoded), max(removed, default=0)
        lengths = np.array([len(text) for text in encoded])
        sizes = lengths + 1 + skipped  # states of each text
        begins = np.cumsum(sizes) - sizes
        states = np.concatenate(
            [_automaton(text, skipped) + begin for text, begin in zip(encoded, begins, strict=True)]
        )  # [states, bytes]
        missing = [[*range(length, -1, -1), *[length] * skipped] for length in lengths.tolist()]
        spelled = np.array([*removed, 0])[:, None]  # [prompts + 1, 1]
        self._initial = torch.from_numpy(begins + np.where(spelled > 0, lengths + spelled, 0))  # [prompts + 1, texts]
        self._following = torch.from_numpy(states.ravel())
        self._missing = torch.tensor([count for each in missing for count in each])
        self._tokens = _TokenBytes(token_bytes, states)

    def initial(self, prompts: Tensor) -> Tensor:
        """Return the states before the first token, ``[rows, texts]``; ``prompts``: of each row, ``[rows]``."""
        self._move_to(prompts.device)
        return self._initial[prompts.clamp_max(len(self._initial) - 1)]

    def advance(self, states: Tensor, tails: Tensor, tokens: Tensor) -> Tensor:
        """Return the states after one more token, ``[rows, candidates, texts]``; see `Attribute`."""
        self._move_to(states.device)
        letters, long = self._tokens.read(tokens)  # [rows, candidates, SHORT], [rows, candidates]
        before = states[:, None].expand(*tokens.shape, self.size)
        after = before
        for letter in letters.unbind(-1):
            after = self._following[after * BYTES + letter[..., None]]
        return torch.where(long[..., None] >= 0, self._tokens.led(long, before), after)

    def missing(self, states: Tensor) -> Tensor:
        """Return how many bytes are missing of each text, ``[..., texts]``; 0 once it has occurred."""
        self._move_to(states.device)
        return self._missing[states]

    def _move_to(self, device: torch.device) -> None:
        """Keep the tables on the device of the rows."""
        if self._missing.device != device:
            for name in ("_initial", "_following", "_missing"):
                setattr(self, name, getattr(self, name).to(device))
            self._tokens.move_to(device)


class _TokenBytes:
    """The bytes of every token, and where long tokens lead.

    Args:
        token_bytes: the bytes of each token; None: no text.
        states: the state after each byte, ``[states, bytes]``.
    """

    def __init__(self, token_bytes: Sequence[bytes | None], states: NDArray[np.int64]) -> None:
        spelled = _spelled(tuple(token_bytes))
        self.longest, self.width = int(spelled.lengths.max()), len(spelled.lengths)
        self._data, self._starts = torch.from_numpy(spelled.data), torch.from_numpy(spelled.starts)
        self._lengths, self._numbers = torch.from_numpy(spelled.lengths), torch.from_numpy(spelled.numbers)
        self._led = torch.from_numpy(_led(spelled.long, states))

    def move_to(self, device: torch.device) -> None:
        """Keep the tables on a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bytes of short tokens, ``[..., longest]``, and the number of long ones, else -1, ``[...]``."""
        known = tokens.clamp_max(self.width - 1)
        places = torch.arange(self.longest, device=tokens.device)
        present = places < self._lengths[known][..., None]
        index = torch.where(present, self._starts[known][..., None] + places, len(self._data) - 1)
        return torch.where(present, self._data[index], BYTES - 1), self._numbers[known]

    def led(self, numbers: Tensor, states: Tensor) -> Tensor:
        """Return the states after long tokens, ``[..., texts]``; of other tokens a number without meaning."""
        return self._led[numbers.clamp_min(0)[..., None], states].long()


class _Spelled(NamedTuple):
    """The bytes of short tokens one after the other, where they start, how many they are, and the long tokens.

    The last entry is that of ids without a token; ``numbers`` holds the number of each long token, else -1.
    """

    data: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    numbers: NDArray[np.int64]
    long: tuple[bytes, ...]


@functools.lru_cache(maxsize=2)
def _spelled(token_bytes: tuple[bytes | None, ...]) -> _Spelled:
    """Return the bytes of all tokens; computed once a vocabulary."""
    lengths = np.array([*(len(data or b"") for data in token_bytes), 0])
    long = np.flatnonzero(lengths > SHORT)
    numbers = np.full(len(lengths), -1)
    numbers[long] = np.arange(len(long))
    lengths[long] = 0
    data = b"".join(data for data in token_bytes if data is not None and len(data) <= SHORT)
    texts = tuple(token_bytes[token] or b"" for token in long.tolist())
    letters = np.append(np.frombuffer(data, np.uint8).astype(np.int64), 0)
    return _Spelled(letters, np.cumsum(lengths) - lengths, lengths, numbers, texts)


def _automaton(text: bytes, skipped: int) -> NDArray[np.int64]:
    """Return the state after each byte, ``[states, bytes]``.

    State n below ``len(text)``: the continuation ends with the first n bytes of the text; state ``len(text)``: the text
    has occurred. State ``len(text) + n`` skips n more bytes.
    """
    size = len(text)
    following = np.zeros((size + 1 + skipped, BYTES), np.int64)
    fallback = 0  # the state after all bytes but the first, which is where a byte that does not fit leads
    for state, byte in enumerate(text):
        following[state] = following[fallback]
        following[state, byte] = state + 1
        fallback = int(following[fallback, byte]) if state else 0
    following[size] = size
    following[size + 1 :] = np.arange(size, size + skipped)[:, None]
    following[size + 1 : size + 2] = 0
    following[:, BYTES - 1] = np.arange(len(following))
    return following


def _led(texts: Sequence[bytes], states: NDArray[np.int64]) -> NDArray[Any]:
    """Return the state after each text from each state, int32 ``[max(texts, 1), states]``."""
    led = np.tile(np.arange(len(states), dtype=np.int32), (max(1, len(texts)), 1))
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    lengths = np.array([len(texts[number]) for number in order])
    for place in range(int(lengths.max(initial=0))):
        left = order[: int((lengths > place).sum())]
        letters = np.array([texts[number][place] for number in left])
        led[left] = states[led[left], letters[:, None]]
    return led
