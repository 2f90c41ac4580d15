"""What one tokenizer wrote, as another one would write it: bytes in, tokens out.

A text that grows token by token in one vocabulary grows raggedly in another: a token more may be none,
one or several tokens there, and may change the last ones. `Retokenizer` is a pure function of the bytes.

Texts grow, so only their end is encoded anew. Between a letter and a space that a letter follows a text may be cut
where no token of the vocabulary spans such a place: no merge and no piece can cross it, and pretokenizers, which
read from left to right, begin there afresh. This holds for every tokenizer we have seen and is checked for each;
where it does not, whole texts are encoded.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from logitkit.errors import ModelError
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.vocabulary import Vocabulary, description

_KEPT: WeakKeyDictionary[Any, dict[tuple[int, int], Vocabulary]] = WeakKeyDictionary()
PIECE = 256  # bytes, at least, of a text that are encoded at once; those before are remembered
_CUT = re.compile(rb"[a-z](?= [a-z])")
_SPANS = re.compile(rb"[a-z] [a-z]")
_STRAY = re.compile("[\udc80-\udcff]+")  # what bytes that are no UTF-8 decode to under "surrogateescape"


class Retokenizer:
    """Tokens of ``target`` for rows of tokens of ``source``, as text in the middle of a document.

    Special tokens of the source have no bytes and are passed over; the spelling of a special token in the
    text is text. No begin token and no dummy space are added. Bytes that are no UTF-8, such as the first
    half of a character, become the target's byte tokens, or U+FFFD where it has none.

    Args:
        source: vocabulary of the rows.
        tokenizer: the other tokenizer; a fast one.
        target: its vocabulary.

    Raises:
        ModelError: a tokenizer that cannot write text without a begin of its own.
    """

    def __init__(self, source: Vocabulary, tokenizer: Any, target: Vocabulary) -> None:
        self.source, self.target = source, target
        self._tokenizer = _bare(tokenizer, target)
        self._cuts = not any(_SPANS.search(spelled) for spelled in target.bytes if spelled)
        self._known: dict[bytes, list[int]] = {}

    def __call__(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the target's tokens of each row of source tokens."""
        return self.of_bytes([self.source.join(row) for row in rows])

    def of_bytes(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Return the tokens of each text; those of the last call's pieces are remembered."""
        cut = [self._pieces(text) for text in texts]
        pieces = dict.fromkeys(piece for pieces in cut for piece in pieces)
        fresh = [piece for piece in pieces if piece not in self._known]
        self._known = {piece: self._known[piece] for piece in pieces if piece in self._known}
        self._known |= dict(zip(fresh, self._encode(fresh), strict=True))
        return [[token for piece in pieces for token in self._known[piece]] for pieces in cut]

    def _pieces(self, text: bytes) -> list[bytes]:
        """Cut a text where its encoding may be; where depends on what stands before only."""
        pieces, start = [], 0
        while self._cuts and (cut := _CUT.search(text, start + PIECE)):
            pieces.append(text[start : cut.end()])
            start = cut.end()
        return [*pieces, text[start:]]

    def _encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Encode in one call; a text is cut where it holds stray bytes."""
        pieces = [_stray(text) for text in texts]
        words = [piece for cut in pieces for piece in cut if isinstance(piece, str)]
        encoded = iter(self._write(words))
        return [
            [token for piece in cut for token in (next(encoded) if isinstance(piece, str) else self._bytes(piece))]
            for cut in pieces
        ]

    def _write(self, texts: list[str]) -> list[list[int]]:
        """Encode texts, none cut or padded; the tokenizer is left as it was."""
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

    def _bytes(self, stray: bytes) -> list[int]:
        """Byte tokens of bytes that are no text."""
        tokens = [self.target.ids_of.get(bytes([byte])) for byte in stray]
        if all(tokens):
            return [ids[0] for ids in tokens if ids]
        return self._write(["\ufffd"])[0]


def vocabulary_of(model: Any, tokenizer: Any) -> Vocabulary:
    """The vocabulary of a model: one entry for each of its logits, whether its tokenizer has more or fewer."""
    size = vocabulary_size(model)
    kept = _KEPT.setdefault(tokenizer, {})
    if (len(tokenizer), size) not in kept:
        known = Vocabulary.of(tokenizer)
        fits = len(known) <= size
        # What does not fit is such as an image token, which is never written.
        whole = Vocabulary.of(tokenizer, size) if fits else dataclasses.replace(known, bytes=known.bytes[:size])
        kept[len(tokenizer), size] = whole
    return kept[len(tokenizer), size]


def _stray(text: bytes) -> list[str | bytes]:
    """Cut into text and stray bytes, in order; no piece is empty."""
    decoded = text.decode("utf-8", "surrogateescape")
    pieces: list[str | bytes] = []
    place = 0
    for stray in _STRAY.finditer(decoded):
        if stray.start() > place:
            pieces.append(decoded[place : stray.start()])
        pieces.append(stray[0].encode("utf-8", "surrogateescape"))
        place = stray.end()
    return [*pieces, decoded[place:]] if place < len(decoded) else pieces


def _bare(tokenizer: Any, vocabulary: Vocabulary) -> Any:
    """Return the tokenizer, or a copy of it that puts no dummy space before a text."""
    if not vocabulary.prefix:
        return tokenizer
    state = description(tokenizer)
    for part in ("normalizer", "pre_tokenizer"):
        state[part] = _without_prefix(state[part])
    state["post_processor"] = None
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    if vocabulary.join(bare("a", add_special_tokens=False)["input_ids"]) != b"a":
        raise ModelError(
            f"Retokenizer: {tokenizer.name_or_path or type(tokenizer).__name__} must be able to write 'a' without a "
            "space before it, or it cannot continue a text; choose a model with another tokenizer"
        )
    return bare


def _without_prefix(step: Any) -> Any:
    """Take the dummy space out of a normalizer or pre-tokenizer."""
    if not isinstance(step, dict) or step.get("type") == "Prepend":
        return None
    for inner in ("normalizers", "pretokenizers"):
        if inner in step:
            step[inner] = [kept for part in step[inner] if (kept := _without_prefix(part)) is not None]
    if "prepend_scheme" in step:
        step["prepend_scheme"] = "never"
    if "add_prefix_space" in step:
        step["add_prefix_space"] = False
    return step
