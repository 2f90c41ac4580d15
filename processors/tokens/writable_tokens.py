"""Writable tokens: the tokens of a BPE vocabulary that occur in the encoding of some text."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from logitkit.processors.tokens.look_ahead import SAMPLE_CONTINUATIONS
from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.reencoding import Mask, completions
from logitkit.processors.tokens.token_bytes import byte_alphabet, starts_inside_character
from logitkit.processors.tokens.tokenizer_description import parts_of
from logitkit.processors.tokens.vocabulary import Vocabulary


def writable_tokens(data: Mapping[str, Any], vocabulary: Vocabulary, merge_rule: MergeRule) -> Mask:
    """Return the tokens that the merges can produce from some text, bool ``[vocab]``.

    If an added token and a token of the model have the same bytes, only the added token is writable.

    Args:
        data: the tokenizer's description.
        vocabulary: its vocabulary.
        merge_rule: its merge rule.
    """
    ids: Mapping[str, int] = data["model"]["vocab"]
    mask = np.zeros(len(vocabulary), dtype=bool)
    width = min(len(mask), merge_rule.size)
    mask[:width] = merge_rule.reachable[:width]
    if data["model"].get("ignore_merges"):
        mask[list(ids.values())] = True
    if vocabulary.style == "byte-level":  # the model never sees characters outside the byte alphabet
        alphabet = byte_alphabet().keys()
        mask[[number for token, number in ids.items() if not alphabet >= set(token)]] = False
    mask[[token for token, token_bytes in enumerate(vocabulary.token_bytes) if not _is_in_text(token_bytes)]] = False
    for token in vocabulary.added:
        mask[list(vocabulary.ids_of[vocabulary.token_bytes[token] or b""])] = False
    mask[list(vocabulary.added)] = True
    if any(step["type"] == "NFC" for step in parts_of(data["normalizer"])):
        mask &= np.array([_is_composed(token_bytes) for token_bytes in vocabulary.token_bytes])
    return mask


def cut_alone(vocabulary: Vocabulary, pretokenizer: Pretokenizer, tokens: Mask) -> Mask:
    r"""Return the tokens whose text is cut whatever follows it when nothing precedes it, bool ``[vocab]``.

    Such a token can still be written behind other text: patterns like GPT-4o's leave ``\n//`` uncut behind a symbol.
    Added tokens that the pretokenizer looks for are never cut. Tokens that start inside a character are not examined.

    Args:
        vocabulary: the tokens as bytes.
        pretokenizer: the pretokenizer.
        tokens: the tokens to examine, bool ``[vocab]``; the result is False for the others.
    """
    mask = np.zeros(len(vocabulary), dtype=bool)
    for token in () if pretokenizer.never_cuts else np.flatnonzero(tokens).tolist():
        token_bytes = vocabulary.token_bytes[token] or b""
        if starts_inside_character(token_bytes):
            continue
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(token_bytes)
        if token not in vocabulary.added or text not in pretokenizer.added:
            mask[token] = all(
                any(0 < cut < len(text) for cut in pretokenizer.cuts(text + more)[0]) for more in SAMPLE_CONTINUATIONS
            )
    return mask


def _is_in_text(token_bytes: bytes | None) -> bool:
    """Return whether some text in UTF-8 contains these bytes; False for an empty or absent byte string."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    whole = (token_bytes or b"").lstrip(bytes(range(0x80, 0xC0)))  # without the end of a character
    try:
        decoder.decode(whole)
    except UnicodeDecodeError:
        return False
    return bool(token_bytes) and len(token_bytes or b"") - len(whole) < 4


def _is_composed(token_bytes: bytes | None) -> bool:
    """Return whether NFC normalization leaves a token unchanged."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    text = decoder.decode(token_bytes or b"")
    open_bytes = decoder.getstate()[0]
    ends = completions(open_bytes) if open_bytes else ("",)
    return any(unicodedata.is_normalized("NFC", text + end) for end in ends)
