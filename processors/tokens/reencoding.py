"""Canonical token sequences by re-encoding: exact for any tokenizer that keeps its text, and slow.

A token sequence is canonical when the encoding of some text starts with this sequence. A token can therefore come next
if, for some continuation of the text, the encoding starts with the tokens so far and this token. Three kinds of
continuations are tried: the empty text, characters of several classes, and, after an incomplete character, the
characters that complete it. The choice of these continuations is a heuristic.
`logitkit.processors.tokens.canonical_rules` gives the same results by rules, and much faster, for BPE tokenizers with
a known pretokenizer; the tests compare both modules.

A unigram model writes the most likely path through a text. The first part of such a path is the most likely path
through the first part of the text. A sequence is therefore canonical exactly if the sequence is the encoding of its
own text, and only the empty continuation is tried.
"""

from __future__ import annotations

import codecs
import functools
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.plain_encoder import plain_encoder
from logitkit.processors.tokens.tokenizer_description import parts_of
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]
Context = tuple[int, ...]  # the last tokens of a sequence; earlier tokens do not affect the next token
CONTINUATIONS = ("", *"a 1.\nsA一'ztmMéʤ。\x01", "  ", "11", " a", "\n\n")
LONGEST = 32  # largest number of tokens of a context; a longer context is cut
KEPT = 8  # smallest number of tokens of a context after a cut


class Reencoding:
    """Next tokens of the canonical sequences of any fast tokenizer, decided by re-encoding.

    For each new context, each candidate token costs the encoding of one or more short texts. A whole vocabulary takes
    seconds.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its vocabulary, of the size of the model.
        tables: the tokenizer's tables; None: everything is computed.

    Raises:
        ModelError: the tokenizer is a slow one.

    >>> from logitkit.processors.tokens import Vocabulary
    >>> from logitkit.registry.laws import foreign_tokenizer
    >>> tokenizer = foreign_tokenizer()
    >>> rules = Reencoding(tokenizer, Vocabulary.of(tokenizer))
    >>> t, h, the = tokenizer.convert_tokens_to_ids(["t", "h", "the"])
    >>> rules.is_canonical([the]), rules.is_canonical([t, h])
    (True, False)
    >>> rules.allows((t,), h), rules.allows((the,), t)
    (False, True)
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary, tables: TokenizerTables | None = None) -> None:
        tables = tables or TokenizerTables(tokenizer, len(vocabulary))
        data = tables.settings
        self.vocabulary = vocabulary
        self._tokenizer = plain_encoder(tables)
        likeliest_path = data["model"]["type"] == "Unigram" and all(
            step["type"] == "Metaspace" for step in parts_of(data["pre_tokenizer"])
        )
        self._continuations = CONTINUATIONS[:1] if likeliest_path else CONTINUATIONS
        self._answers = functools.lru_cache(maxsize=256)(self._no_answers)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens and without a space before it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def is_canonical(self, ids: Sequence[int]) -> bool:
        """Return whether a complete sequence is what the tokenizer writes for its text."""
        try:
            return self.encode(self.vocabulary.join(ids).decode()) == list(ids)
        except UnicodeDecodeError:
            return False

    def extend(self, context: Context, token: int) -> Context:
        """Return the context after one more token.

        A context of more than `LONGEST` tokens is cut such that the remaining tokens are a canonical sequence. After a
        special token the context is empty, because special tokens do not depend on their neighbours.
        """
        if self.vocabulary.token_bytes[token] is None:
            return ()
        context = (*context, token)
        cuts = range(len(context) - KEPT, 0, -1) if len(context) > LONGEST else ()
        return next((context[cut:] for cut in cuts if self.is_canonical(context[cut:])), context)

    def may_end(self, context: Context) -> bool:
        """Return whether a text may end here, that is, whether the tokens are the encoding of their text."""
        return self.is_canonical(context)

    def allows(self, context: Context, token: int) -> bool:
        """Return whether a token can come next; see `allowed` for several tokens."""
        return bool(self.allowed(context, np.array([token]))[0])

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Return which tokens can come next.

        Args:
            context: result of `extend` for the tokens so far; an empty tuple at the start of a text.
            ids: token ids, of any shape.

        Returns:
            bool, of the shape of ``ids``.
        """
        answered, allowed = self._answers(context)
        new = np.unique(ids[~answered[ids]])
        allowed[new] = self._try(context, new.tolist())
        answered[new] = True
        mask: Mask = allowed[ids]
        return mask

    def successors(self, context: Context) -> Mask:
        """Return which tokens can come next, bool ``[vocab]``; the caller may not write to the mask."""
        return self.allowed(context, np.arange(len(self.vocabulary)))

    def forbidden(self, context: Context) -> Ids:
        """Return the tokens that cannot come next, ``[count]`` ids, each once."""
        return np.flatnonzero(~self.successors(context))

    def _no_answers(self, context: Context) -> tuple[Mask, Mask]:
        """Return two masks for a context, to be filled in by `allowed`: the tokens tried, and the tokens allowed."""
        return np.zeros(len(self.vocabulary), dtype=bool), np.zeros(len(self.vocabulary), dtype=bool)

    def _try(self, context: Context, ids: list[int]) -> list[bool]:
        """Return whether each token can come next; one continuation after another is encoded."""
        context_bytes, canonical = self.vocabulary.join(context), dict.fromkeys(ids, False)
        waiting = {token: self._continued_texts(context_bytes, self.vocabulary.token_bytes[token]) for token in ids}
        while waiting:
            tried = {token: text for token, texts in waiting.items() if (text := next(texts, None)) is not None}
            encoded = self._tokenizer.encode_batch_fast(list(tried.values()), add_special_tokens=False)
            for token, encoding in zip(tried, encoded, strict=True):
                canonical[token] = tuple(encoding.ids[: len(context) + 1]) == (*context, token)
            waiting = {token: waiting[token] for token in tried if not canonical[token]}
        return list(canonical.values())

    def _continued_texts(self, context_bytes: bytes, token_bytes: bytes | None) -> Iterator[str]:
        """Yield the texts to try for a token after a context.

        There are none for a token without bytes, or if the token makes the text invalid as UTF-8.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        try:
            text = decoder.decode(context_bytes + token_bytes) if token_bytes else None
        except UnicodeDecodeError:
            text = None
        if text is None:
            return iter(())
        open_bytes = decoder.getstate()[0]
        return (text + more for more in (completions(open_bytes) if open_bytes else self._continuations))


@functools.lru_cache(maxsize=4096)
def completions(open_bytes: bytes) -> tuple[str, ...]:
    """Return characters whose UTF-8 starts with these bytes.

    Up to 2047 characters are all returned. Of more characters, about a thousand are returned, evenly spaced, and
    the first and the last character of each general category of Unicode, so that rare categories are represented.
    """
    points = code_points(open_bytes)
    # The step is odd, because capitals and small letters alternate in many blocks.
    spaced = points[:: len(points) // 1024 | 1]
    if len(spaced) == len(points):
        return tuple(map(chr, points))
    last = {unicodedata.category(chr(point)): point for point in points}
    first = {unicodedata.category(chr(point)): point for point in reversed(points)}
    return tuple(map(chr, dict.fromkeys([*first.values(), *last.values(), *spaced])))
