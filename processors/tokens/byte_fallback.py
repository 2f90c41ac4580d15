"""Byte tokens of SentencePiece vocabularies, such as ``<0x0A>``, for the characters that the vocabulary lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.token_bytes import MARKER
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

Mask = NDArray[np.bool_]


class ByteFallback:
    """The byte tokens of a SentencePiece vocabulary, used only for characters that the vocabulary lacks.

    Args:
        tables: the tokenizer's tables.
        vocabulary: its vocabulary.

    Attributes:
        first: byte tokens that can start a character, bool ``[vocab]``.
    """

    def __init__(self, tables: TokenizerTables, vocabulary: Vocabulary) -> None:
        self._size = len(vocabulary)
        # The marker stands for a space, so a text never reaches the byte tokens with a literal marker in it.
        marker = {MARKER} if vocabulary.style == "sentencepiece" else set()
        characters, tokens = tables.value("byte_fallback", lambda: _characters_and_byte_tokens(tables.whole["model"]))
        self._characters = set(characters.replace(MARKER, " ")) | marker
        self._byte_of: dict[int, int] = dict(map(tuple, tokens))  # token id -> byte
        self.first = self._mask(lambda byte: self._starts_absent_character(bytes([byte])))

    def is_byte_token(self, token: int) -> bool:
        """Return whether a token is one of the byte tokens."""
        return token in self._byte_of

    def completing(self, open_bytes: bytes) -> Mask:
        """Return the byte tokens that can follow the first bytes of a character, bool ``[vocab]``."""
        return self._mask(lambda byte: self._starts_absent_character(open_bytes + bytes([byte])))

    def _starts_absent_character(self, open_bytes: bytes) -> bool:
        """Return whether the vocabulary lacks some character that starts with these bytes."""
        return any(chr(code) not in self._characters for code in code_points(open_bytes))

    def _mask(self, fits: Callable[[int], bool]) -> Mask:
        """Return the byte tokens for whose byte ``fits`` is true, bool ``[vocab]``."""
        mask = np.zeros(self._size, dtype=bool)
        mask[[token for token, byte in self._byte_of.items() if fits(byte)]] = True
        return mask


def _characters_and_byte_tokens(model: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """Return the tokens of one character, joined, and the id and byte of each byte token.

    Args:
        model: the part ``model`` of a tokenizer's description.
    """
    names = {f"<0x{byte:02X}>": byte for byte in range(256)} if model.get("byte_fallback") else {}
    characters = "".join(token for token in model["vocab"] if len(token) == 1)
    return characters, [(model["vocab"][name], byte) for name, byte in names.items() if name in model["vocab"]]


def code_points(open_bytes: bytes) -> range:
    """Return the code points of the characters whose UTF-8 starts with these bytes.

    Args:
        open_bytes: at least one byte. The range is empty for bytes that start no character.
    """
    lead = open_bytes[0]
    length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    continued = all(0x80 <= byte < 0xC0 for byte in open_bytes[1:])
    if 0x80 <= lead < 0xC0 or lead >= 0xF5 or len(open_bytes) > length or not continued:
        return range(0)
    known_bits = lead & (0x7F >> (length if length > 1 else 0))
    for tail in open_bytes[1:]:
        known_bits = known_bits << 6 | tail & 0x3F
    open_bits = 6 * (length - len(open_bytes))
    lowest = (0, 0x80, 0x800, 0x10000)[length - 1]  # UTF-8 forbids longer encodings than needed
    highest = 0xD800 if lead == 0xED else 0x110000  # surrogates are no characters
    return range(max(lowest, known_bits << open_bits), min(highest, (known_bits + 1) << open_bits))
