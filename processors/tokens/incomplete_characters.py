"""Tokens that end inside a character, and the characters that the tokens behind them can complete."""

from __future__ import annotations

import codecs
import functools
import sys
import unicodedata

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.reencoding import Mask
from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.vocabulary import Vocabulary

CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of UTF-8 inside a character
Points = NDArray[np.int64]


class IncompleteCharacters:
    r"""Tells which characters the merges let tokens complete that another token has begun.

    In Qwen2.5, every character that starts with ``\xc3`` is merged to one token. The token ``\xc3`` alone is therefore
    never written before the rest of a character. In a tokenizer that cuts digits off, ``\xd9`` behind a line break
    begins an Arabic digit or nothing, and nothing if the digits are merged.

    Args:
        vocabulary: the tokens as bytes.
        merge_rule: which tokens can be neighbours inside a word.
        pretokenizer: defines the character classes.
        completing: tokens that start inside a character and are writable, bool ``[vocab]``.
        composes: whether the tokenizer normalizes to NFC; it then reads no character that NFC replaces.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        merge_rule: MergeRule,
        pretokenizer: Pretokenizer,
        completing: Mask,
        *,
        composes: bool,
    ) -> None:
        self._merge_rule, self._pretokenizer, self._composes = merge_rule, pretokenizer, composes
        self._completing = np.flatnonzero(completing[: merge_rule.size])
        texts = [vocabulary.token_bytes[token] or b"" for token in self._completing.tolist()]
        starts = [text[: len(text) - len(text.lstrip(CONTINUATION))] for text in texts]
        self._starts = sorted(set(starts))  # the bytes with which tokens continue a character
        place = {start: number for number, start in enumerate(self._starts)}
        self._start_of = np.array([place[start] for start in starts], dtype=np.int64)
        self._only_start = np.array([start == text for start, text in zip(starts, texts, strict=True)], dtype=bool)
        self._bits = np.array([_low_bits(start) for start in self._starts], dtype=np.int64)
        self._lengths = np.array([len(start) for start in self._starts], dtype=np.int64)
        self._last_bits = functools.lru_cache(maxsize=None)(self._find_last_bits)
        self._behind = functools.lru_cache(maxsize=None)(self._find_behind)
        self._points = functools.lru_cache(maxsize=None)(self._find_points)
        self.characters = functools.lru_cache(maxsize=None)(self._characters)

    def _characters(self, token: int, open_bytes: bytes) -> tuple[str, ...]:
        """Return characters that tokens behind a token can complete: the first and the last one of each class.

        Args:
            token: a token that ends inside a character.
            open_bytes: the first bytes of this character; some of them may lie in tokens before. Without bytes, or
                where no token can complete the character, the result is empty.
        """
        if not open_bytes:
            return ()
        return tuple(map(chr, self._pretokenizer.representatives(self._points(token, open_bytes))))

    def _find_points(self, token: int, open_bytes: bytes) -> Points:
        """Return the code points of these characters; of those that lack two bytes or more, as `_characters` does."""
        possible = code_points(open_bytes)
        missing = _length(open_bytes[0]) - len(open_bytes)
        numbers, tokens = self._behind(token)
        whole = numbers[self._lengths[numbers] == missing]
        base = possible.start - possible.start % (1 << 6 * missing)
        found = [base + self._bits[whole]]
        for place in tokens.tolist():
            token, start = int(self._completing[place]), self._starts[self._start_of[place]]
            further = code_points(open_bytes + start) if len(start) < missing else range(0)
            if further and len(start) == missing - 1:  # most calls, so they are answered here
                found.append(further.start + self._last_bits(token))
            elif further:
                found.append(self._points(token, open_bytes + start))
        points: Points = np.unique(np.concatenate(found))
        points = points[(points >= possible.start) & (points < possible.stop)]
        if self._composes:
            points = points[~_replaced_by_nfc()[points]]
        return self._pretokenizer.representatives(points) if missing > 1 else points

    def _find_last_bits(self, token: int) -> Points:
        """Return the bits of a character's last byte in tokens that can follow a token."""
        numbers, _ = self._behind(token)
        bits: Points = self._bits[numbers[self._lengths[numbers] == 1]]
        return bits

    def _find_behind(self, token: int) -> tuple[Points, Points]:
        """Return the starts, by number, of tokens that can follow a token, and the places of those that are no more."""
        follows = self._merge_rule.successors(token)[self._completing]
        return np.unique(self._start_of[follows]), np.flatnonzero(follows & self._only_start)


def inside_character(vocabulary: Vocabulary) -> Mask:
    """Return the tokens that start inside a character, bool ``[vocab]``."""
    return np.array([starts_inside_character(text) for text in vocabulary.token_bytes], dtype=bool)


def dead_ends(
    vocabulary: Vocabulary,
    merge_rule: MergeRule,
    pretokenizer: Pretokenizer,
    writable: Mask,
    inside: Mask,
    *,
    composes: bool,
) -> Mask:
    """Return the tokens that end inside a character which no token can complete, bool ``[vocab]``.

    Args:
        vocabulary, merge_rule, pretokenizer, composes: as for `IncompleteCharacters`.
        writable: tokens that the merges can produce from some text, bool ``[vocab]``.
        inside: tokens that start inside a character, bool ``[vocab]``.
    """
    opened = {token: open_bytes_of(vocabulary, token) for token in np.flatnonzero(writable[: merge_rule.size]).tolist()}
    dead, found = np.zeros(len(vocabulary), dtype=bool), True
    while found:  # a token that only dead ends follow is one itself
        alive = writable & inside & ~dead
        incomplete = IncompleteCharacters(vocabulary, merge_rule, pretokenizer, alive, composes=composes)
        new = [token for token, rest in opened.items() if rest and not dead[token]]
        new = [token for token in new if not incomplete.characters(token, opened[token])]
        dead[new] = True
        found = bool(inside[new].any())
    return dead


def open_bytes_of(vocabulary: Vocabulary, token: int) -> bytes:
    """Return the bytes of an incomplete character at the end of a token that begins it; b"" without such bytes."""
    token_bytes = vocabulary.token_bytes[token] or b""
    if token_bytes[-1:] < b"\x80":
        return b""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        decoder.decode(token_bytes.lstrip(CONTINUATION))
    except UnicodeDecodeError:
        return b""
    return decoder.getstate()[0]


def _length(lead: int) -> int:
    """Return the number of bytes of a character of UTF-8 from its first byte."""
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _low_bits(start: bytes) -> int:
    """Return the bits of a code point that some bytes inside a character hold."""
    return functools.reduce(lambda bits, byte: bits << 6 | byte & 0x3F, start, 0)


@functools.cache
def _replaced_by_nfc() -> NDArray[np.bool_]:
    """Return which characters NFC replaces, by code point."""
    return np.array([not unicodedata.is_normalized("NFC", chr(code)) for code in range(sys.maxunicode + 1)], dtype=bool)
