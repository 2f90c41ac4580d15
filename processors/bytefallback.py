"""Byte tokens of a vocabulary of characters, as SentencePiece has them: ``<0x0A>`` and the like."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.vocabulary import MARKER, Vocabulary

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
        self.first = self._mask(
            lambda value: 0xC2 <= value < 0xF5 or (value < 0x80 and chr(value) not in self._characters)
        )

    def holds(self, token: int) -> bool:
        """Say whether this is a byte token."""
        return token in self._bytes

    def completing(self, begun: bytes) -> Mask:
        """Byte tokens that may go on with a character, ``[vocab]``."""

        def fits(value: int) -> bool:
            decoder = codecs.getincrementaldecoder("utf-8")("strict")
            try:
                return decoder.decode(begun + bytes([value])) not in self._characters
            except UnicodeDecodeError:
                return False

        return self._mask(fits)

    def _mask(self, fits: Callable[[int], bool]) -> Mask:
        mask = np.zeros(self._size, dtype=bool)
        mask[[token for token, value in self._bytes.items() if fits(value)]] = True
        return mask
