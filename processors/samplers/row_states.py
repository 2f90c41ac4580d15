"""States of rows that fold over their tokens, on the device of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.engine.cache_rewinding import longest_cached_prefix
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.grown_rows import GrownRows
from logitkit.processors.engine.prompts import Prompts

Advance = Callable[[Tensor, Tensor, Tensor], Tensor]  # (states [rows, size], tails, tokens [rows, 1]) -> [rows, size]


class RowStates:
    """The state after each row, which depends on its prompt and tokens alone.

    The states after every token of the last rows are kept. Rows that grew by a token cost one step and no read of the
    device; other rows are computed from the longest prefix that the last rows hold.

    Args:
        prompts: the prompts of the call.
        settings: the settings of the call, which state where a continuation starts.
        initial: returns the states before the first token by the numbers of the prompts, ``[rows]``.
        advance: returns the states after one more token of each row.

    Example:
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "ab")
        >>> totals = RowStates(prompts, CallSettings(tiny_model(), prompts), lambda numbers: numbers[:, None],
        ...                    lambda states, tails, tokens: states + tokens)
        >>> totals(torch.tensor([[*prompts.tokens(0), 3, 4]]))
        tensor([[7]])
    """

    def __init__(
        self, prompts: Prompts, settings: CallSettings, initial: Callable[[Tensor], Tensor], advance: Advance
    ) -> None:
        self._prompts, self._settings, self._initial, self._advance = prompts, settings, initial, advance
        self._grown = GrownRows(prompts, self.forget)
        self.forget()

    def __reduce__(self) -> Any:
        return type(self), (self._prompts, self._settings, self._initial, self._advance)

    def forget(self) -> None:
        """Drop the kept states."""
        self._states: Tensor | None = None  # [rows, tokens + 1, size]
        self._tails: Tensor
        self._index: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the state after each row, ``[rows, size]``.

        Args:
            rows: token ids, ``[rows, length]``.
        """
        index, tails = self._prompts.rows(rows), rows[:, self._settings.start :]
        new = 0 if self._states is None else self._grown.new_tokens(rows)
        known = self._states
        if known is None or not new:
            known = self._kept(index, tails)
        parts = [known]
        for place in range(known.shape[1] - 1, tails.shape[1]):
            parts.append(self._advance(parts[-1][:, -1], tails[:, :place], tails[:, place : place + 1])[:, None])
        self._states, self._index, self._tails = torch.cat(parts, dim=1), index, tails
        self._grown.note(rows)
        return self._states[:, -1]

    def _kept(self, index: Tensor, tails: Tensor) -> Tensor:
        """Return the states of the longest prefix of every row that is known, ``[rows, tokens + 1, size]``."""
        if self._states is not None:
            keep, source = longest_cached_prefix(index, tails, self._index, self._tails)
            if keep >= 0:
                return self._states[source, : keep + 1]
        return self._initial(index)[:, None]
