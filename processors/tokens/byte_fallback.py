"""Byte tokens of a vocabulary of characters, as SentencePiece has them: ``<0x0A>`` and the like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.token_bytes import MARKER
from logitkit.processors.tokens.vocabulary import Vocabulary

Mask = NDArray[np.bool_]


class ByteFallback:
    """Byte tokens of a vocabulary of characters: they spell the characters it lacks, and nothing else.

    Attributes:
        first: those that may follow whole characters, ``[vocab]``.
    """

    def __init__(self, model: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        self._size = len(vocabulary)
        self._bytes: dict[int, int] = {}
        self._characters = {token.replace(MARKER, " ") for token in model["vocab"] if len(token) == 1}
        if model.get("byte_fallback"):
            names = {f"<0x{value:02X}>": value for value in range(256)}
            self._bytes = {model["vocab"][name]: value for name, value in names.items() if name in model["vocab"]}
        self.first = self._mask(lambda value: self._lacks(bytes([value])))

    def holds(self, token: int) -> bool:
        """Say whether this is a byte token."""
        return token in self._bytes

    def completing(self, begun: bytes) -> Mask:
        """Byte tokens that may go on with a character, ``[vocab]``."""
        return self._mask(lambda value: self._lacks(begun + bytes([value])))

    def _lacks(self, begun: bytes) -> bool:
        """Say whether some character that begins with these bytes is not in the vocabulary."""
        return any(chr(code) not in self._characters for code in code_points(begun))

    def _mask(self, fits: Callable[[int], bool]) -> Mask:
        mask = np.zeros(self._size, dtype=bool)
        mask[[token for token, value in self._bytes.items() if fits(value)]] = True
        return mask


def code_points(begun: bytes) -> range:
    """The code points of the characters whose UTF-8 begins with these bytes; none for bytes that no text holds."""
    lead = begun[0]
    length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if 0x80 <= lead < 0xC0 or lead >= 0xF5 or len(begun) > length or any(not 0x80 <= b < 0xC0 for b in begun[1:]):
        return range(0)
    known = lead & (0x7F >> (length if length > 1 else 0))
    for tail in begun[1:]:
        known = known << 6 | tail & 0x3F
    open_bits = 6 * (length - len(begun))
    lowest = (0, 0x80, 0x800, 0x10000)[length - 1]  # shorter encodings are not allowed
    highest = 0xD800 if lead == 0xED else 0x110000  # surrogates are no characters
    return range(max(lowest, known << open_bits), min(highest, (known + 1) << open_bits))
