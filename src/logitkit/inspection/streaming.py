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
        removed: bytes cut from the prompt, with which the continuation begins; they are not written.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        advance: Callable[[], None],
        write: Callable[[str], None] | None,
        removed: bytes = b"",
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._advance, self._write, self._started = advance, write, False
        self._removed = removed.decode(errors="ignore")

    def put(self, value: Tensor) -> None:
        """Take the prompt first, then one token at a time."""
        if self._started:
            self._advance()
        self._started = True
        super().put(value)  # type: ignore[no-untyped-call]

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Write a piece of text."""
        while self._removed and text:
            left_out = self._removed[0] == " " != text[0]  # decoding may leave out a space at the beginning
            text, self._removed = text if left_out else text[1:], self._removed[1:]
        if self._write is not None:
            self._write(text)
