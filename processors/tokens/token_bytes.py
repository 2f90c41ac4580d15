"""The bytes that each token stands for, read from the description of a fast tokenizer."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from logitkit.processors.tokens.tokenizer_description import parts_of

MARKER = "▁"  # SentencePiece's space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_DROPPING = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit")  # pretokenizers


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of a byte-level vocabulary, as GPT-2 defines them.

    A printable byte is written as the character of the same code point; the others as characters from U+0100 on.

    >>> byte_alphabet()["a"], byte_alphabet()["Ġ"]
    (97, 32)
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


def starts_inside_character(token_bytes: bytes | None) -> bool:
    """Return whether bytes start with a continuation byte of UTF-8, that is, inside a character."""
    return bool(token_bytes) and 0x80 <= (token_bytes or b"")[0] < 0xC0


def style_of(data: Mapping[str, Any]) -> str:
    """Return how a tokenizer writes bytes: ``byte-level``, ``sentencepiece``, ``wordpiece`` or ``plain``.

    Args:
        data: the tokenizer's `description`.
    """
    decoders = {step["type"] for step in parts_of(data["decoder"])}
    pretokenizers = {step["type"] for step in parts_of(data["pre_tokenizer"])}
    marked = any(step.get("content") == MARKER for step in parts_of(data["normalizer"]))
    if "ByteLevel" in decoders | pretokenizers:
        return "byte-level"
    if marked or "Metaspace" in decoders | pretokenizers:
        return "sentencepiece"
    return "wordpiece" if data["model"]["type"] == "WordPiece" else "plain"


def bytes_of_tokens(data: Mapping[str, Any], ids: Mapping[str, int], style: str, size: int) -> list[bytes | None]:
    """Return the bytes of each token id, ``[size]``; None for special tokens and absent ids.

    Args:
        data: the tokenizer's `description`.
        ids: id of each token, added tokens included.
        style: how the tokenizer writes bytes, from `style_of`.
        size: number of ids.
    """
    added = {token["id"]: token for token in data["added_tokens"]}
    byte_fallback = bool(data["model"].get("byte_fallback"))
    token_bytes: list[bytes | None] = [None] * size
    for token, number in ids.items():
        if number not in added:
            token_bytes[number] = _bytes_of_token(token, style, byte_fallback)
        elif not added[number]["special"]:
            token_bytes[number] = token.encode()
    if style == "sentencepiece":  # in such a tokenizer, a run of markers as an added token stands for a run of spaces
        for number, token in added.items():
            if not token["special"]:
                token_bytes[number] = token["content"].replace(MARKER, " ").encode()
    return token_bytes


def _bytes_of_token(token: str, style: str, byte_fallback: bool) -> bytes:
    """Bytes of one token of the model, that is, not of an added token."""
    if style == "byte-level":
        alphabet = byte_alphabet()
        known = all(char in alphabet for char in token)
        return bytes(alphabet[char] for char in token) if known else token.encode()
    if byte_fallback and (byte := _BYTE_TOKEN.fullmatch(token)):
        return bytes([int(byte[1], 16)])
    if style == "sentencepiece":
        return token.replace(MARKER, " ").encode()
    if style == "wordpiece":
        return token[2:].encode() if token.startswith("##") else b" " + token.encode()
    return token.encode()


def loss_reason(data: Mapping[str, Any], style: str) -> str:
    """Return why the bytes of a text cannot be recovered from its tokens; an empty string where they can.

    Args:
        data: the tokenizer's `description`.
        style: how the tokenizer writes bytes, from `style_of`.
    """
    if style == "wordpiece":
        return "WordPiece drops white space"
    for step in parts_of(data["normalizer"]):
        kind = step["type"]
        if kind in ("NFC", "Prepend") or (kind == "Replace" and step["content"] == MARKER):
            continue  # NFC leaves a text in NFC unchanged, and nearly all text is in NFC
        if kind == "BertNormalizer" and not (step["lowercase"] or step["strip_accents"] or step["clean_text"]):
            continue
        return f"its normalizer {kind} changes text"
    for step in parts_of(data["pre_tokenizer"]):
        if step["type"] in _DROPPING or (step.get("behavior") == "Removed" and not step.get("invert")):
            return f"its pretokenizer {step['type']} drops the text at which it cuts"
    if style == "plain" and not data["model"].get("byte_fallback"):
        return "its tokens do not cover all bytes" if data["model"].get("unk_token") else ""
    return ""


def lost_texts(data: Mapping[str, Any], style: str) -> tuple[str, ...]:
    """Return the few texts that a tokenizer changes although it keeps the bytes of all others.

    Args:
        data: the tokenizer's `description`.
        style: how the tokenizer writes bytes, from `style_of`.
    """
    lost = []
    if style == "sentencepiece":
        lost.append(f"the character {MARKER} (U+2581), which stands for a space")
    if any(step["type"] == "NFC" for step in parts_of(data["normalizer"])):
        lost.append("text that is not in NFC, which is composed")
    return tuple(lost)
