"""Token shapes: groups of tokens that a pretokenizer does not distinguish. A vocabulary has few shapes."""

from __future__ import annotations

import codecs
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

Ends = Callable[[int, bytes], tuple[str, ...]]


class ShapeExample(NamedTuple):
    """An example of a shape.

    Attributes:
        text: the token's whole characters.
        ends: characters that can complete its last one, of each class; empty where it is complete.
        added: whether the token is an added one.
    """

    text: str
    ends: tuple[str, ...]
    added: bool


class TokenShapes:
    """The shape of each token.

    Tokens of one shape have the same character classes, and the same characters complete their last character.

    Args:
        vocabulary: the tokens as bytes.
        pretokenizer: the pretokenizer that defines the character classes.
        writable: tokens that the tokenizer can write at all, bool ``[vocab]``; the others have shape 0.
        whole: tokens all of whose characters count: they are written only behind certain texts, bool ``[vocab]``.
        ends: returns the characters that can complete a token, given the token and the first bytes of a character.
        fine: whether the letters in `Pretokenizer.literal` are distinguished.
        tables: the tokenizer's tables; None: everything is computed.

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
        ends: Ends,
        *,
        fine: bool,
        tables: TokenizerTables | None = None,
    ) -> None:
        @functools.cache
        def shapes() -> tuple[NDArray[np.int64], list[ShapeExample]]:
            return _find_shapes(vocabulary, pretokenizer, writable, whole, ends, fine=fine)

        if tables is None or pretokenizer.never_cuts:
            self.of, self.examples = shapes()
            return
        name = "fine_shapes" if fine else "shapes"
        self.of = tables.array(name, lambda: shapes()[0])
        packed = tables.value(name, lambda: [(text, "".join(chars), added) for text, chars, added in shapes()[1]])
        self.examples = [ShapeExample(text, tuple(chars), bool(added)) for text, chars, added in packed]


def _find_shapes(
    vocabulary: Vocabulary,
    pretokenizer: Pretokenizer,
    writable: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    ends: Ends,
    *,
    fine: bool,
) -> tuple[NDArray[np.int64], list[ShapeExample]]:
    """Return the number of the shape of each token, and a token of each shape; see `TokenShapes`."""
    of = np.zeros(len(vocabulary), dtype=np.int64)
    examples = [ShapeExample("", (), False)]
    numbers: dict[Any, int] = {}
    if not pretokenizer.never_cuts:
        for token in np.flatnonzero(writable).tolist():
            token_bytes = vocabulary.token_bytes[token] or b""
            if starts_inside_character(token_bytes):
                continue
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(token_bytes)
            added = token in vocabulary.added and text in pretokenizer.added
            completed = ends(token, decoder.getstate()[0])
            key: Any = token
            if not added:
                shape = pretokenizer.shape(text, fine=fine, whole=bool(whole[token]))
                key = shape, bool(whole[token]), completed
            if key not in numbers:
                numbers[key] = len(examples)
                examples.append(ShapeExample(text, completed, added))
            of[token] = numbers[key]
    return of, examples
