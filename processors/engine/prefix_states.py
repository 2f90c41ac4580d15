"""States of rows that are computed token by token on the host, and cached by prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

State = TypeVar("State")
Tokens = NDArray[np.int64]

LEAST = 256  # states kept at least; 4 for each row where there are more rows
BACK = 64  # how many tokens a row may lie before the prefix whose state is looked up


class PrefixStates(Generic[State]):
    """The state after each row: a fold over its tokens that depends on prompt and tokens alone.

    The states of the rows asked for last are kept, so a row that grows by one token costs one step. Any other row is
    computed from its longest known prefix, or from its prompt.

    Args:
        initial: returns the state before the first token, by the number of the prompt.
        advance: returns the state after one more token; it must not change the state that it is given.

    Example:
        >>> totals = PrefixStates(lambda prompt: 100 * prompt, lambda total, token: total + token)
        >>> totals([0, 1], np.array([[1, 2], [3, 4]]))
        [3, 107]
    """

    def __init__(self, initial: Callable[[int], State], advance: Callable[[State, int], State]) -> None:
        self._initial, self._advance = initial, advance
        self._known: OrderedDict[tuple[int, bytes], State] = OrderedDict()

    def __call__(self, prompts: Sequence[int], rows: Tokens) -> list[State]:
        """Return the state after each row.

        Args:
            prompts: number of the prompt of each row.
            rows: the tokens after the prompts, ``[rows, count]``.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        states = [self._state(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
        while len(self._known) > max(LEAST, 4 * len(rows)):
            self._known.popitem(last=False)
        return states

    def __len__(self) -> int:
        """Return the number of states that are kept."""
        return len(self._known)

    def _state(self, prompt: int, row: Tokens) -> State:
        """Return the state after one row, and keep it."""
        data, size = row.tobytes(), row.itemsize
        for back in range(min(BACK, len(row)) + 1):
            key = prompt, data[: len(data) - back * size]
            if key in self._known:
                self._known.move_to_end(key)
                state, missing = self._known[key], row[len(row) - back :]
                break
        else:
            state, missing = self._initial(prompt), row
        for token in missing.tolist():
            state = self._advance(state, token)
        self._known[prompt, data] = state
        return state
