"""A streamer that counts tokens for a progress bar and passes text on while it is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import TextStreamer


class Streamer(TextStreamer):
    """The text streamer of transformers with a callback per token and a callback per piece of text.

    Args:
        tokenizer: decodes the tokens.
        advance: called once per generated token.
        write: called with each finished piece of text; None discards the text.
        removed: bytes that were cut from the end of the prompt. The continuation starts with these bytes; they are
            not passed to ``write``.

    >>> import torch
    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> tokenizer, pieces = tiny_tokenizer(), []
    >>> streamer = Streamer(tokenizer, advance=lambda: None, write=pieces.append)
    >>> prompt, continuation = tokenizer("a", return_tensors="pt").input_ids, tokenizer("bc").input_ids
    >>> streamer.put(prompt)
    >>> for token in continuation:
    ...     streamer.put(torch.tensor([token]))
    >>> streamer.end()
    >>> "".join(pieces)
    'bc'
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
        self._advance, self._write, self._prompt_seen = advance, write, False
        self._removed = removed.decode(errors="ignore")

    def put(self, value: Tensor) -> None:
        """Receive the prompt at the first call, and one token or, from a search, several at each further call."""
        for _ in range(value.numel() if self._prompt_seen else 0):
            self._advance()
        self._prompt_seen = True
        super().put(value)  # type: ignore[no-untyped-call]

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass on a piece of text without the characters that the prompt already holds."""
        while self._removed and text:
            space_dropped = self._removed[0] == " " != text[0]  # some tokenizers drop a leading space when decoding
            text, self._removed = text if space_dropped else text[1:], self._removed[1:]
        if self._write is not None:
            self._write(text)
