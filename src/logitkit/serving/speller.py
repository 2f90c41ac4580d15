"""The text of a continuation, token by token, without characters that later tokens may still change."""

from __future__ import annotations

import codecs
from typing import Any

from logitkit.processors.tokens.vocabulary import Vocabulary

UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet


class Speller:
    r"""Decodes tokens as they come; the pieces joined are the text of all tokens.

    A character of several tokens appears with its last token. Only a window of the last tokens is decoded again at
    each step, so a long text costs no more for each token than a short one.

    Args:
        tokenizer: of the generating model.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> speller = Speller(tiny_tokenizer())
    >>> [speller.add(token) for token in tiny_tokenizer()("né!")["input_ids"]], speller.end()
    (['n', '', 'é', '!'], '')
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._spelled = 0  # tokens of the window whose text was returned

    def add(self, token: int) -> str:
        """Return the text that is complete with this token, without special tokens."""
        self._window.append(token)
        text = self._new_text()
        if not text or text.endswith(UNFINISHED):
            return ""
        self._window = self._window[self._spelled :]
        self._spelled = len(self._window)
        return text

    def end(self) -> str:
        """Return the rest of the text when no token follows; bytes that are no character become U+FFFD."""
        text = self._new_text()
        self._spelled = len(self._window)
        return text

    def _new_text(self) -> str:
        """Return the text of the window behind what was returned."""
        return self._decoded(self._window)[len(self._decoded(self._window[: self._spelled])) :]

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""


class SpellerAfterRemovedBytes:
    r"""The same for a continuation that first spells the bytes that a chain cut from the end of its prompt.

    Args:
        tokenizer: of the generating model, a fast one.
        removed: the bytes; they are no part of the text.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> speller = SpellerAfterRemovedBytes(tiny_tokenizer(), b"n")
    >>> [speller.add(token) for token in tiny_tokenizer()("né")["input_ids"]]
    ['', '', 'é']
    """

    def __init__(self, tokenizer: Any, removed: bytes) -> None:
        self._vocabulary, self._cut = Vocabulary.of(tokenizer), len(removed)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        """Return the text that is complete with this token, without special tokens."""
        written = self._vocabulary.join([token] if token < len(self._vocabulary) else [])
        skipped = min(self._cut, len(written))
        self._cut -= skipped
        return self._decoder.decode(written[skipped:])

    def end(self) -> str:
        """Return the rest of the text when no token follows; bytes that are no character become U+FFFD."""
        return self._decoder.decode(b"", final=True)


def speller_of(tokenizer: Any, removed: bytes) -> Speller | SpellerAfterRemovedBytes:
    """Return the speller of a continuation whose prompt lost these bytes at its end; empty: it lost none."""
    return SpellerAfterRemovedBytes(tokenizer, removed) if removed else Speller(tokenizer)
