"""Show a continuation as it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import TextStreamer


class Streamer(TextStreamer):
    """transformers' streamer, telling of every token and writing where it is told.

    Args:
        tokenizer: decodes the tokens.
        advance: called once a token.
        write: called with each finished piece of text; None writes nothing.
    """

    def __init__(self, tokenizer: Any, *, advance: Callable[[], None], write: Callable[[str], None] | None) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._advance, self._write, self._started = advance, write, False

    def put(self, value: Tensor) -> None:
        """Take the prompt first, then one token at a time."""
        if self._started:
            self._advance()
        self._started = True
        super().put(value)  # type: ignore[no-untyped-call]

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Write a piece of text."""
        if self._write is not None:
            self._write(text)
