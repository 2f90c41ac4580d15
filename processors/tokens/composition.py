"""Composition under NFC over the seam between two tokens.

A tokenizer that normalizes to NFC never reads "a" followed by U+0301: it reads "á". Tokens whose first character would
compose with the text before them, or change places with it, therefore never follow that text.
"""

from __future__ import annotations

import codecs
import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.tokenizer_description import parts_of
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary


class Composition:
    """Tells which tokens a tokenizer that normalizes to NFC writes behind a text; without NFC, all.

    Args:
        vocabulary: the tokens as bytes.
        composes: whether the tokenizer normalizes to NFC.
        tables: the tokenizer's tables; None: everything is computed.

    Attributes:
        composes: the argument.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> composition = Composition(Vocabulary.of(tiny_tokenizer()), composes=True)
    >>> composition.fits("a", "\u0301"), composition.fits("x", "\u0301")
    (False, True)
    """

    def __init__(self, vocabulary: Vocabulary, *, composes: bool, tables: TokenizerTables | None = None) -> None:
        self.composes = composes
        find = functools.partial(_joining_tokens, vocabulary)
        tokens = (find() if tables is None else tables.value("joining", find)) if composes else []
        self._text_of = {token: _text(vocabulary, token) for token in tokens}  # can change with the text before them
        self._size = len(vocabulary)
        self._changing = functools.lru_cache(maxsize=1024)(self._find_changing)

    @classmethod
    def of(cls, tables: TokenizerTables, vocabulary: Vocabulary) -> Composition:
        """Return the composition of a tokenizer, from its tables."""
        composes = any(step["type"] == "NFC" for step in parts_of(tables.settings["normalizer"]))
        return cls(vocabulary, composes=composes, tables=tables)

    def permits(self, before: str) -> NDArray[np.bool_]:
        """Return which tokens leave the text before them unchanged, bool ``[vocab]``."""
        mask = np.ones(self._size, dtype=bool)
        mask[list(self.changing(before))] = False
        return mask

    def permits_token(self, before: str, token: int) -> bool:
        """Return whether one token leaves the text before it unchanged; see `permits`."""
        return token not in self._text_of or self.fits(before, self._text_of[token])

    def changing(self, before: str) -> tuple[int, ...]:
        """Return the tokens that change with the text before them, the complement of `permits`."""
        return self._changing(_tail(before)) if self.composes else ()

    def _find_changing(self, tail: str) -> tuple[int, ...]:
        """Return the tokens that change with the end of a text; `permits` caches the result."""
        return tuple(token for token, text in self._text_of.items() if not self.fits(tail, text))

    def fits(self, before: str, text: str) -> bool:
        """Return whether normalization changes nothing where a text follows another text."""
        if not self.composes or not text or not joins(text[0]):
            return True
        return unicodedata.is_normalized("NFC", _tail(before) + text)

    def fits_completed(self, before: str, text: str) -> bool:
        r"""Return whether normalization changes nothing where the end of a character, and a text, follow another text.

        A token can end a character that NFC replaces, such as U+095D, of which no token alone has every byte.

        Args:
            before: the text before the character.
            text: the character and the text behind it; empty while the character is incomplete.
        """
        return not self.composes or (self.fits(before, text) and unicodedata.is_normalized("NFC", text))

    def parts(self, text: str, place: int) -> bool:
        """Return whether normalization never crosses an offset of a text, whatever follows the text."""
        return not self.composes or not joins(text[place])


def _tail(text: str) -> str:
    """Return the end of a text with which NFC can join a character: its last characters that join, and one more."""
    start = len(text)
    while start and joins(text[start - 1]):
        start -= 1
    return text[max(0, start - 1) :]


def _joining_tokens(vocabulary: Vocabulary) -> list[int]:
    """Return the tokens whose first character NFC can join with the text before them."""
    whole = (token for token, text in enumerate(vocabulary.token_bytes) if text and not starts_inside_character(text))
    return [token for token in whole if joins(_text(vocabulary, token)[:1])]


def _text(vocabulary: Vocabulary, token: int) -> str:
    """Return the whole characters of a token."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(vocabulary.token_bytes[token] or b"")


@functools.cache
def joins(char: str) -> bool:
    """Return whether NFC can compose a character with the text before it, or change their order; False for ""."""
    return bool(char) and (unicodedata.combining(char) > 0 or char in _second_characters())


@functools.cache
def _second_characters() -> frozenset[str]:
    """Return the characters that NFC can compose with the character before them."""
    decompositions = (unicodedata.decomposition(chr(code)).split() for code in range(0x30000))
    pairs = (parts for parts in decompositions if len(parts) == 2 and not parts[0].startswith("<"))
    hangul = (chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)))  # vowels and final consonants
    return frozenset([*(chr(int(second, 16)) for _, second in pairs), *hangul])
