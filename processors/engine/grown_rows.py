"""Rows that continue the rows of an earlier step, found without a read of the device where the call knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from logitkit.processors.engine.prompts import Prompts


class GrownRows:
    """Notes the rows of a step, and tells how many tokens the rows of a later step have beyond them.

    Inside a step of a chain the comparison is assumed to hold and is read with the other comparisons of the step. After
    the first assumption that was wrong, as under beams, each comparison is read at once.

    Args:
        prompts: the prompts of the call.
        forget: drops what was computed for other rows; called where an assumption was wrong.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "ab")
        >>> rows, grown = GrownRows(prompts, lambda: None), torch.tensor([[*prompts.tokens(0), 7]])
        >>> rows.note(prompts.ids)
        >>> rows.new_tokens(grown), rows.new_tokens(grown + 1)
        (1, 0)
    """

    def __init__(self, prompts: Prompts, forget: Callable[[], None]) -> None:
        self._prompts, self._forget = prompts, forget
        self._last: Tensor | None = None
        self._line: object | None = None
        self._defers = True

    def note(self, rows: Tensor | None) -> None:
        """Note the rows of this step, ``[rows, length]``; None: forget the noted rows."""
        self._last = rows
        self._line = None if rows is None else self._prompts.deferred_checks.line_of(rows)

    def new_tokens(self, rows: Tensor) -> int:
        """Return how many tokens each row has beyond the noted rows; 0: other rows, or unknown.

        Several tokens are found only inside the steps of one `generate`, which compare each step with the last one.

        Args:
            rows: ``[rows, length]``.
        """
        last = self._last
        if last is None or len(rows) != len(last) or rows.shape[1] <= last.shape[1]:
            return 0
        checks = self._prompts.deferred_checks
        grew = checks.grew(self._line, rows)
        if grew is None:
            grew = self._prompts.grew_by_one(last, rows)
        if grew is None:
            return 0
        holds = checks.check(grew, self._fail) if self._defers else bool(grew)
        return rows.shape[1] - last.shape[1] if holds else 0

    def _fail(self) -> None:
        """Drop what was computed for other rows, and read each later comparison at once."""
        self.note(None)
        self._defers = False
        self._forget()
