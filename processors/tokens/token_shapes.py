"""Token shapes: groups of tokens that a pretokenizer does not distinguish. A vocabulary has few shapes."""

from __future__ import annotations

import codecs
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.vocabulary import Vocabulary


class ShapeExample(NamedTuple):
    """An example of a shape: the token's whole characters, its incomplete last character, and whether it is added."""

    text: str
    open_bytes: bytes
    added: bool


class TokenShapes:
    """The shape of each token.

    Tokens of one shape have the same character classes, and the same characters complete their last character.

    Args:
        vocabulary: the tokens as bytes.
        pretokenizer: the pretokenizer that defines the character classes.
        writable: tokens that the tokenizer can write at all, bool ``[vocab]``; the others have shape 0.
        whole: tokens all of whose characters count: they are written only behind certain texts, bool ``[vocab]``.
        fine: whether the letters in `Pretokenizer.literal` are distinguished.

    Attributes:
        of: number of the shape of each token, int64 ``[vocab]``; 0 for tokens that start inside a character.
        examples: a token of each shape.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        pretokenizer: Pretokenizer,
        writable: NDArray[np.bool_],
        whole: NDArray[np.bool_],
        *,
        fine: bool,
    ) -> None:
        self.of = np.zeros(len(vocabulary), dtype=np.int64)
        self.examples: list[ShapeExample] = [ShapeExample("", b"", False)]
        numbers: dict[Any, int] = {}
        if pretokenizer.never_cuts:
            return
        for token in np.flatnonzero(writable).tolist():
            token_bytes = vocabulary.token_bytes[token] or b""
            if starts_inside_character(token_bytes):
                continue
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(token_bytes)
            added = token in vocabulary.added and text in pretokenizer.added
            open_bytes = decoder.getstate()[0]
            key: Any = token
            if not added:
                shape = pretokenizer.shape(text, fine=fine, whole=bool(whole[token]))
                key = shape, bool(whole[token]), pretokenizer.completions(open_bytes)
            if key not in numbers:
                numbers[key] = len(self.examples)
                self.examples.append(ShapeExample(text, open_bytes, added))
            self.of[token] = numbers[key]
