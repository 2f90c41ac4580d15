"""Notice rows that begin with a bound prompt and hold more tokens than the call has seen.

`generate` does not tell a processor where a prompt ends. Rows that begin with a bound prompt are read as its
continuation, which is wrong where they are a longer prompt: the second turn of a chat, say, under the processors that
were bound to the first turn. The two differ in one way: `generate` asks the chain about every prefix of a continuation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from logitkit.errors import ContinuationWarning
from logitkit.processors.engine.prompts import Prompts

KEPT_PREFIXES = 2**17  # hashes of known prefixes; beyond, all are dropped, so that continuing an old row may warn


class RowCheck:
    """Warns once when rows continue a prompt of the call with tokens that the call has not seen.

    A row is known if `generate` asked about the row without its last token before. Steps of beam search, rejected
    drafts and a `generate` that continues its own output are known. The last token of a row is chosen outside the
    chain, so a row in which that token alone is another one is known too.

    Args:
        prompts: the prompts of the call, which no encoder reads.

    Attributes:
        accepts: whether rows may begin anywhere behind a prompt, without a warning.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "ab")
        >>> check = RowCheck(prompts)
        >>> check.grew_by_one(prompts.ids) is None  # a first step: nothing to compare with
        True
        >>> check.compare(prompts.ids)
        >>> bool(check.grew_by_one(torch.tensor([[*prompts.tokens(0), 7]])))
        True
    """

    def __init__(self, prompts: Prompts) -> None:
        self.prompts, self.accepts = prompts, False
        self._last: Tensor | None = None  # rows of the last step; with them, all of their prefixes are known
        self._known: set[int] = set()
        self._prompts = {hash(tuple(row)) for row in prompts.ids.tolist()}

    def grew_by_one(self, rows: Tensor) -> Tensor | None:
        """Return whether these are the rows of the last step with one more token each, and remember them if so.

        Args:
            rows: ``[rows, length]``.

        Returns:
            A bool tensor on the device; None when the shapes already show that they are not. Where it is not true,
            `compare` must be called.
        """
        if self.accepts or self._last is None:
            return None
        return self.prompts.grew_by_one(self._last, rows)

    def remember(self, rows: Tensor) -> None:
        """Note rows that grew by one."""
        self._last = rows

    def compare(self, rows: Tensor) -> None:
        """Warn if a row continues a prompt with tokens that the call has not seen, and remember the rows.

        Args:
            rows: ``[rows, length]``.
        """
        if self.accepts:
            return
        if self._last is not None:
            for row in self._last.tolist():
                self._known.update(self._prefixes(row))
        if len(self._known) > KEPT_PREFIXES:
            self._known.clear()
        self._last = rows
        added = rows.shape[1] - self.prompts.width
        if added > 0 and any(self._is_unknown(row) for row in rows.tolist()):
            self._warn(added)

    def _is_unknown(self, row: Sequence[int]) -> bool:
        """Return whether a row begins with a prompt of the call, and the call did not see the row's last step."""
        before = self._prefixes(row)[-2]
        return before not in self._known and hash(tuple(row[: self.prompts.width])) in self._prompts

    def _prefixes(self, row: Sequence[int]) -> list[int]:
        """Return a hash of each prefix of a row, from its prompt to the whole row."""
        width = self.prompts.width
        return list(
            accumulate(row[width:], lambda prefix, token: hash((prefix, token)), initial=hash(tuple(row[:width])))
        )

    def _warn(self, added: int) -> None:
        """Warn, and accept such rows from now on."""
        self.accepts, self._last = True, None
        self._known.clear()
        warnings.warn(
            f"logitkit: the rows of generate begin with prompts of this call ({self.prompts.width} tokens), and the "
            f"{added} tokens behind them are read as a continuation that the call did not write; give "
            "generate the prompts of the call, **call.inputs, or bind the chain to the longer prompts. If they are a "
            "continuation, say so: call.continuing()",
            ContinuationWarning,
            stacklevel=2,
        )
