"""Notice rows that begin with a bound prompt and hold more tokens than the call has seen.

`generate` does not tell a processor where a prompt ends. Rows that begin with a bound prompt are read as its
continuation, which is wrong where they are a longer prompt: the second turn of a chat, say, under the processors that
were bound to the first turn. The two differ in one way: `generate` asks the chain about every prefix of a continuation.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from logitkit.errors import ContinuationWarning
from logitkit.processors.engine.prefix_random import prefix_hashes
from logitkit.processors.engine.prompts import Prompts

# Hashes of known prefixes. Beyond, all but those of the last rows are dropped, so that continuing an old row may warn.
KEPT_PREFIXES = 2**17


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
        self._known: set[int] = set()  # hashes
        self._noted = 0  # prefixes of the last rows with at most so many tokens are among the known ones
        self._prompts = set(prefix_hashes(prompts.ids)[:, -1].tolist())

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
        width, added = self.prompts.width, rows.shape[1] - self.prompts.width
        if len(self._known) > KEPT_PREFIXES:
            self._known.clear()
            self._noted = 0
        columns = []
        if added > 0:
            whole = prefix_hashes(rows)
            columns.append(torch.stack([whole[:, width - 1], whole[:, -2]], dim=1))
        if self._last is not None:
            columns.append(prefix_hashes(self._last)[:, max(width - 1, self._noted) :])
        hashes = [part.flatten().tolist() for part in columns]
        if self._last is not None:
            self._known.update(hashes.pop())
        self._last, self._noted = rows, 0
        if added <= 0:
            return
        starts, before = hashes[0][::2], hashes[0][1::2]
        new = [start for start, prefix in zip(starts, before, strict=True) if prefix not in self._known]
        if not new:
            self._noted = rows.shape[1] - 1
        elif not self._prompts.isdisjoint(new):
            self._warn(added)

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
