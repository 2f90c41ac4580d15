"""Which tokens may follow which, found by encoding again: slow, and right for any tokenizer that keeps its text.

A token may come next if the tokenizer writes just these tokens first for some text that goes on from them. Whether
there is one is tried with a few continuations: nothing, characters of each sort, and, behind an open character,
the ways to complete it. `logitkit.processors.tokens.canonical_rules` decides the same by rules, far faster, for
the BPE tokenizers whose pretokenizers it knows; the tests hold it against this module.

A unigram model writes the likeliest path through a text. What such a path begins with is itself the likeliest path
through its own text, so there a sequence is live exactly if it encodes to itself, and nothing else is tried.
"""

from __future__ import annotations

import codecs
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.tokenizer_description import description, parts_of
from logitkit.processors.tokens.vocabulary import Vocabulary

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]
Context = tuple[int, ...]  # the last tokens, from where a word surely begins
AHEAD = ("", *"a 1.\nsA一'ztmMéʤ。\x01", "  ", "11", " a", "\n\n")  # what may follow
LONGEST = 32  # tokens that a context holds at most
KEPT = 8  # tokens that a context keeps at least, where it is cut


class Reencoding:
    """The canonical sequences of any fast tokenizer.

    Costs an encoding or more of a short text for every token asked about, once a context: seconds for a whole
    vocabulary.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its tokens as bytes, as wide as the model.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        data = description(tokenizer)
        self.vocabulary = vocabulary
        self._plain = _without_specials(data)
        best_path = data["model"]["type"] == "Unigram" and all(
            step["type"] == "Metaspace" for step in parts_of(data["pre_tokenizer"])
        )
        self._ahead = AHEAD[:1] if best_path else AHEAD
        self._known = functools.lru_cache(maxsize=256)(self._nothing_known)

    def encode(self, text: str) -> list[int]:
        """Encode a text as it stands: no special tokens, no space put before it."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def is_canonical(self, ids: Sequence[int]) -> bool:
        """Say whether a whole sequence is what the tokenizer writes for its bytes, by encoding them again."""
        try:
            return self.encode(self.vocabulary.join(ids).decode()) == list(ids)
        except UnicodeDecodeError:
            return False

    def extend(self, context: Context, token: int) -> Context:
        """The context after one more token; beyond `LONGEST` tokens, cut where the rest encodes to itself."""
        if self.vocabulary.token_bytes[token] is None:
            return ()  # a special token stands alone whatever is beside it
        context = (*context, token)
        cuts = range(len(context) - KEPT, 0, -1) if len(context) > LONGEST else ()
        return next((context[cut:] for cut in cuts if self.is_canonical(context[cut:])), context)

    def may_end(self, context: Context) -> bool:
        """Say whether a text may end here: with nothing to follow, these are still its tokens."""
        return self.is_canonical(context)

    def allows(self, context: Context, token: int) -> bool:
        """Say whether a token may come next; `allowed` says it of many."""
        return bool(self.allowed(context, np.array([token]))[0])

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Say of some tokens whether each may come next; of the shape of the ids."""
        asked, live = self._known(context)
        new = np.unique(ids[~asked[ids]])
        live[new] = self._tried(context, new.tolist())
        asked[new] = True
        mask: Mask = live[ids]
        return mask

    def _nothing_known(self, context: Context) -> tuple[Mask, Mask]:
        """Which tokens were asked about after this context, and which of them may come."""
        return np.zeros(len(self.vocabulary), dtype=bool), np.zeros(len(self.vocabulary), dtype=bool)

    def _tried(self, context: Context, ids: list[int]) -> list[bool]:
        """Encode the context with each token and one continuation after the other, until the tokens come first."""
        begun, live = self.vocabulary.join(context), dict.fromkeys(ids, False)
        waiting = {number: self._endings(begun, self.vocabulary.token_bytes[number]) for number in ids}
        while waiting:
            tried = {number: text for number, texts in waiting.items() if (text := next(texts, None)) is not None}
            encoded = self._plain.encode_batch_fast(list(tried.values()), add_special_tokens=False)
            for number, encoding in zip(tried, encoded, strict=True):
                live[number] = tuple(encoding.ids[: len(context) + 1]) == (*context, number)
            waiting = {number: waiting[number] for number in tried if not live[number]}
        return list(live.values())

    def _endings(self, begun: bytes, spelled: bytes | None) -> Iterator[str]:
        """The texts to try for a token; none for one that spells nothing, or bytes that no text holds there."""
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        try:
            text = decoder.decode(begun + spelled) if spelled else None
        except UnicodeDecodeError:
            text = None
        if text is None:
            return iter(())
        opened = decoder.getstate()[0]
        return (text + more for more in (completions(opened) if opened else self._ahead))


@functools.lru_cache(maxsize=4096)
def completions(opened: bytes) -> tuple[str, ...]:
    """Characters that begin with these bytes: all of up to 64; of more about a thousand, spread over them."""
    points = code_points(opened)
    return tuple(map(chr, points[:: len(points) // 1024 | 1]))  # an odd step: capitals alternate with small letters


def unprefixed(steps: Sequence[Any]) -> list[dict[str, Any]]:
    """The same steps of a pretokenizer, adding no space before a text."""
    plain = [dict(step) for step in steps]
    for step in plain:
        step |= {"add_prefix_space": False} if "add_prefix_space" in step else {}
        step |= {"prepend_scheme": "never"} if step["type"] == "Metaspace" else {}
    return plain


def _without_specials(data: dict[str, Any]) -> Tokenizer:
    """The tokenizer, blind to special tokens, and without the space that it may put before a text."""
    normalizers = [step for step in parts_of(data["normalizer"]) if step["type"] != "Prepend"]
    plain = {
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": unprefixed(parts_of(data["pre_tokenizer"]))}
        if data["pre_tokenizer"]
        else None,
        "post_processor": None,
        "padding": None,
        "truncation": None,
    }
    tokenizer = Tokenizer.from_str(json.dumps(data | plain))
    tokenizer.encode_special_tokens = True  # as any other text; left out, they would shift the ids of added tokens
    return tokenizer
