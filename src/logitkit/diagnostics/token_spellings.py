"""How tokens and bytes are written in tables and on pages."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from logitkit.errors import ModelError
from logitkit.processors.tokens import Vocabulary
from logitkit.processors.tokens.byte_trie import END


class TokenSpellings:
    r"""Texts of tokens, with their spaces; bytes that form no whole character are escaped.

    Args:
        tokenizer: the tokenizer; None: the tokens are bytes, and 256 is the end.

    >>> TokenSpellings(None).name(97), TokenSpellings(None).pieces([110, 195, 169])
    ('a', ['n', '', 'é'])
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def _bytes(self) -> Sequence[bytes | None] | None:
        """The bytes of every token; None for a slow tokenizer."""
        if self.tokenizer is None:
            return [*(bytes([byte]) for byte in range(END)), None]
        try:
            return Vocabulary.of(self.tokenizer).token_bytes
        except ModelError:
            return None

    def name(self, token: int) -> str:
        """Return the text of one token."""
        spelled = self._spelled(token)
        if spelled is not None:
            return spelled.decode(errors="backslashreplace")
        if self.tokenizer is None:
            return "<end>"
        return str(self.tokenizer.convert_ids_to_tokens(token) or f"<id {token}>")

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the texts of successive tokens; joined, they are the text.

        A character that several tokens write stands at the last of them. Bytes that never become one are escaped.
        """
        decoder, pieces = codecs.getincrementaldecoder("utf-8")("backslashreplace"), []
        for token in tokens:
            spelled = self._spelled(token)
            pieces.append(
                decoder.decode(b"", final=True) + self.name(token) if spelled is None else decoder.decode(spelled)
            )
        if pieces:
            pieces[-1] += decoder.decode(b"", final=True)
        return pieces

    def _spelled(self, token: int) -> bytes | None:
        """Return the bytes of a token; None where it has none, or they are unknown."""
        known = self._bytes
        return None if known is None or token >= len(known) else known[token]
