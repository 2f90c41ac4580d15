"""Retokenization: tokens of a source tokenizer are rewritten as tokens of a target tokenizer with the same bytes.

One more source token may add no, one or several target tokens, and may change the last target tokens. `Retokenizer`
therefore maps bytes to target tokens, as a pure function.

Only the end of a growing text is encoded again. A text is cut before a space between two lower-case letters. No merge
crosses such a cut, provided that no target token contains a space between two such letters. A pretokenizer that reads
from left to right does not look back across the cut. The pieces are assumed to have the tokens of the whole text; this
heuristic holds for all tested tokenizers. If a target token contains a space between two lower-case letters, whole
texts are encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from logitkit.errors import ModelError
from logitkit.processors.tokens.tokenizer_description import description, without_prefix_space
from logitkit.processors.tokens.vocabulary import Vocabulary

PIECE = 256  # least number of bytes between two cuts of a text
_CUT = re.compile(rb"[a-z](?= [a-z])")
_SPANS = re.compile(rb"[a-z] [a-z]")
_INVALID = re.compile("[\udc80-\udcff]+")  # the characters for invalid UTF-8 under "surrogateescape"


class Retokenizer:
    """Rewrites rows of source tokens as target tokens, as text in the middle of a document.

    Special tokens of the source have no bytes and are left out. Text that is spelled like a special token is encoded
    as text. No begin token and no space are put before a text. Bytes that are no valid UTF-8, such as the first half
    of a character, become byte tokens of the target, or U+FFFD if the target has no byte tokens.

    Args:
        source: vocabulary of the rows.
        tokenizer: the target's fast tokenizer.
        target: the target's vocabulary.

    Raises:
        ModelError: the tokenizer puts a space before every text, and no setting prevents the space.

    >>> from logitkit.processors.tokens import Vocabulary
    >>> from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
    >>> source, target = tiny_tokenizer(), foreign_tokenizer()
    >>> retokenize = Retokenizer(Vocabulary.of(source), target, Vocabulary.of(target))
    >>> rows = [source("th")["input_ids"], source("the")["input_ids"]]
    >>> [target.convert_ids_to_tokens(tokens) for tokens in retokenize(rows)]
    [['th'], ['the']]
    """

    def __init__(self, source: Vocabulary, tokenizer: Any, target: Vocabulary) -> None:
        self.source, self.target = source, target
        self._tokenizer = _bare(tokenizer, target)
        self.cuts = not any(_SPANS.search(token_bytes) for token_bytes in target.token_bytes if token_bytes)
        self._tokens_of: dict[bytes, list[int]] = {}  # target tokens of each piece of the last call

    def __call__(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the target's token ids for each row of source token ids."""
        return self.of_bytes([self.source.join(row) for row in rows])

    def of_bytes(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Return the target's token ids for each text.

        The tokens of the pieces of the last call are cached, so only the end of a growing text is encoded.
        """
        pieces_of = [self._pieces(text) for text in texts]
        pieces = dict.fromkeys(piece for each in pieces_of for piece in each)
        new = [piece for piece in pieces if piece not in self._tokens_of]
        self._tokens_of = {piece: self._tokens_of[piece] for piece in pieces if piece in self._tokens_of}
        self._tokens_of |= dict(zip(new, self._encode(new), strict=True))
        return [[token for piece in each for token in self._tokens_of[piece]] for each in pieces_of]

    def _pieces(self, text: bytes) -> list[bytes]:
        """Return the pieces of a text; a cut depends only on the text before the cut and on two bytes after."""
        pieces, start = [], 0
        while self.cuts and (cut := _CUT.search(text, start + PIECE)):
            pieces.append(text[start : cut.end()])
            start = cut.end()
        return [*pieces, text[start:]]

    def _encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Return the token ids of each text, from one call of the tokenizer; invalid UTF-8 is encoded separately."""
        parts_of = [_valid_and_invalid(text) for text in texts]
        encoded = iter(self._tokenize([part for parts in parts_of for part in parts if isinstance(part, str)]))
        return [
            [token for part in parts for token in (next(encoded) if isinstance(part, str) else self._byte_tokens(part))]
            for parts in parts_of
        ]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, neither truncated nor padded; the tokenizer's settings are restored."""
        inner = self._tokenizer.backend_tokenizer
        splits, padding, truncation = inner.encode_special_tokens, inner.padding, inner.truncation
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        try:
            return [encoding.ids for encoding in inner.encode_batch_fast(texts, add_special_tokens=False)]
        finally:
            inner.encode_special_tokens = splits
            if padding is not None:
                inner.enable_padding(**padding)
            if truncation is not None:
                inner.enable_truncation(**truncation)

    def _byte_tokens(self, invalid: bytes) -> list[int]:
        """Return the byte tokens of bytes that are no valid UTF-8, or the tokens of U+FFFD."""
        tokens = [self.target.ids_of.get(bytes([byte])) for byte in invalid]
        if all(tokens):
            return [ids[0] for ids in tokens if ids]
        return self._tokenize(["\ufffd"])[0]


def _valid_and_invalid(text: bytes) -> list[str | bytes]:
    """Return the parts of a text in order: valid UTF-8 as strings, other bytes as bytes; no part is empty."""
    decoded = text.decode("utf-8", "surrogateescape")
    parts: list[str | bytes] = []
    place = 0
    for invalid in _INVALID.finditer(decoded):
        if invalid.start() > place:
            parts.append(decoded[place : invalid.start()])
        parts.append(invalid[0].encode("utf-8", "surrogateescape"))
        place = invalid.end()
    return [*parts, decoded[place:]] if place < len(decoded) else parts


def _bare(tokenizer: Any, vocabulary: Vocabulary) -> Any:
    """Return the tokenizer itself, or a copy that puts no space before a text."""
    if not vocabulary.prefix:
        return tokenizer
    state = json.dumps(without_prefix_space(description(tokenizer)))
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(state))
    if vocabulary.join(bare("a", add_special_tokens=False)["input_ids"]) != b"a":
        raise ModelError(
            f"Retokenizer: {tokenizer.name_or_path or type(tokenizer).__name__} must be able to encode 'a' without a "
            "space before it, to continue a text; choose a model with another tokenizer"
        )
    return bare
