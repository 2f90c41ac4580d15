"""Tokens that end inside a character, and whether some token can complete this character."""

from __future__ import annotations

import codecs
import functools

import numpy as np

from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.reencoding import Mask
from logitkit.processors.tokens.vocabulary import Vocabulary


class IncompleteCharacters:
    r"""Tells whether the merges leave a way to complete a character that tokens have begun.

    In Qwen2.5, every character that starts with ``\xc3`` is merged to one token. The token ``\xc3`` alone is therefore
    never written before the rest of a character.

    Args:
        vocabulary: the tokens as bytes.
        merge_rule: which tokens can be neighbours inside a word.
        completing: tokens that start inside a character and are writable, bool ``[vocab]``.
    """

    def __init__(self, vocabulary: Vocabulary, merge_rule: MergeRule, completing: Mask) -> None:
        self._vocabulary, self._merge_rule = vocabulary, merge_rule
        self._completing = np.flatnonzero(completing[: merge_rule.size])
        self.completable = functools.lru_cache(maxsize=None)(self._completable)

    def dead_ends(self, writable: Mask) -> Mask:
        """Return the tokens that end inside a character which no token can complete, bool ``[vocab]``."""
        mask = np.zeros(len(self._vocabulary), dtype=bool)
        for token in np.flatnonzero(writable[: self._merge_rule.size]).tolist():
            token_bytes = self._vocabulary.token_bytes[token] or b""
            if token_bytes[-1:] >= b"\x80":
                open_bytes = _open_bytes(token_bytes.lstrip(bytes(range(0x80, 0xC0))))
                mask[token] = bool(open_bytes) and not self.completable(token, open_bytes)
        return mask

    def _completable(self, token: int, open_bytes: bytes) -> bool:
        """Return whether some tokens behind a token complete the character of which these bytes are the first."""
        following = self._completing[self._merge_rule.successors(token)[self._completing]]
        for number in following.tolist():
            joined = open_bytes + (self._vocabulary.token_bytes[number] or b"")
            still_open = _open_bytes(joined)
            if still_open is not None and (len(still_open) < len(joined) or self.completable(number, still_open)):
                return True
        return False


def _open_bytes(token_bytes: bytes) -> bytes | None:
    """Return the bytes of an incomplete character at the end; None for bytes that are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        decoder.decode(token_bytes)
    except UnicodeDecodeError:
        return None
    return decoder.getstate()[0]
