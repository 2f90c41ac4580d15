"""What a pretokenizer can tell about a token: few shapes stand for a whole vocabulary."""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.vocabulary import Vocabulary


class Shapes:
    """Tokens grouped by what a pretokenizer can tell about them.

    Args:
        vocabulary: the tokens as bytes.
        pretokenizer: what cuts words.
        may_start: tokens that can be written at all, ``[vocab]``; others have no shape.
        fine: whether letters of contractions count.

    Attributes:
        of: number of the shape of each token, ``[vocab]``.
        examples: one text of each shape, the bytes of a character left open at its end, and whether it is added.
    """

    def __init__(
        self, vocabulary: Vocabulary, pretokenizer: Pretokenizer, may_start: NDArray[np.bool_], *, fine: bool
    ) -> None:
        self.of = np.zeros(len(vocabulary), dtype=np.int64)
        self.examples: list[tuple[str, bytes, bool]] = [("", b"", False)]
        numbers: dict[Any, int] = {}
        if pretokenizer.trivial:
            return
        for number in np.flatnonzero(may_start):
            spelled = vocabulary.token_bytes[number] or b""
            if starts_inside_character(spelled):
                continue  # no word begins there, nor a character
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(spelled)
            added = number in vocabulary.added and text in pretokenizer.added
            opened = decoder.getstate()[0]
            key = number if added else (pretokenizer.shape(text, fine=fine), pretokenizer.completed(opened))
            if key not in numbers:
                numbers[key] = len(self.examples)
                self.examples.append((text, opened, added))
            self.of[number] = numbers[key]
