"""What a pretokenizer can tell about a token: few shapes stand for a whole vocabulary."""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.pretoken import Pretokenizer
from logitkit.processors.vocabulary import Vocabulary


class Shapes:
    """Tokens grouped by what a pretokenizer can tell about them.

    Args:
        vocabulary: the tokens as bytes.
        pretokenizer: what cuts words.
        may_start: tokens that can be written at all, ``[vocab]``; others have no shape.
        fine: whether letters of contractions count.

    Attributes:
        of: number of the shape of each token, ``[vocab]``.
        examples: one text of each shape, whether a character is left open at its end, and whether it is added.
        tails: tokens that begin inside a character, ``[vocab]``.
    """

    def __init__(
        self, vocabulary: Vocabulary, pretokenizer: Pretokenizer, may_start: NDArray[np.bool_], *, fine: bool
    ) -> None:
        self.of = np.zeros(len(vocabulary), dtype=np.int64)
        self.tails = np.zeros(len(vocabulary), dtype=bool)
        self.examples: list[tuple[str, bool, bool]] = [("", False, False)]
        numbers: dict[Any, int] = {}
        if pretokenizer.trivial:
            return
        for number in np.flatnonzero(may_start):
            spelled = vocabulary.bytes[number] or b""
            if 0x80 <= spelled[0] < 0xC0:
                self.tails[number] = True
                continue
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(spelled)
            added = number in vocabulary.added and text in pretokenizer.added
            opens = bool(decoder.getstate()[0])
            key = number if added else (pretokenizer.shape(text, fine=fine), opens)
            if key not in numbers:
                numbers[key] = len(self.examples)
                self.examples.append((text, opens, added))
            self.of[number] = numbers[key]
