"""The byte string of every token, for any fast tokenizer of transformers.

A token stands for bytes, not for a string: ``Ġ``, ``▁`` and ``<0x0A>`` are spellings of bytes that depend on
the tokenizer. Joining the bytes of the ids of a text gives back the text, which is tested on real tokenizers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from logitkit.errors import ModelError

Bytes = bytes  # in a class with a field of that name
MARKER = "▁"  # SentencePiece's space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_DROPPING = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit")  # pretokenizers
_KNOWN: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: printable ones are themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """What the tokens of a tokenizer spell.

    Attributes:
        bytes: byte string of each token id; None for special tokens and for ids that the tokenizer lacks.
            Of length ``size``, which may be more than the tokenizer has (padded vocabularies).
        special: ids of special tokens.
        added: ids of added tokens that are not special: matched in the text before anything else.
        style: how tokens are spelled: ``byte-level``, ``sentencepiece``, ``wordpiece`` or ``plain``.
        prefix: bytes that the tokenizer puts before every text (``b" "`` or nothing).
        loses: why encoding loses bytes of a text, or an empty string: such a tokenizer has no byte-level law.
    """

    bytes: tuple[Bytes | None, ...]
    special: frozenset[int]
    added: frozenset[int]
    style: str
    prefix: Bytes
    loses: str = ""

    @classmethod
    def of(cls, tokenizer: Any, size: int | None = None) -> Vocabulary:
        """Read the vocabulary of a fast tokenizer; the answer is kept for as long as the tokenizer lives.

        Args:
            tokenizer: a fast tokenizer of transformers.
            size: ids of the model, where it has more than the tokenizer; or fewer, where those that it lacks are
                added tokens (of images, say), which it then cannot write.

        Raises:
            ModelError: no fast tokenizer, or fewer ids than it uses.
        """
        kept = kept_with(tokenizer)
        count = max(tokenizer.get_vocab().values(), default=-1) + 1
        size = count if size is None else size
        if any(
            number >= size and number not in tokenizer.added_tokens_decoder for number in tokenizer.get_vocab().values()
        ):
            raise ModelError(f"Vocabulary: size must be at least the tokenizer's {count} ids, got {size}")
        key = "vocabulary", count, size
        if key not in kept:
            whole = _read(tokenizer, max(size, count))
            known = range(size)
            kept[key] = dataclasses.replace(
                whole,
                bytes=whole.bytes[:size],
                special=whole.special.intersection(known),
                added=whole.added.intersection(known),
            )
        return kept[key]  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.bytes)

    @cached_property
    def ids_of(self) -> Mapping[Bytes, tuple[int, ...]]:
        """All ids that spell these bytes: more than one where a vocabulary has duplicates."""
        found: dict[Bytes, list[int]] = {}
        for number, spelled in enumerate(self.bytes):
            if spelled:
                found.setdefault(spelled, []).append(number)
        return {spelled: tuple(numbers) for spelled, numbers in found.items()}

    def join(self, ids: Iterable[int]) -> Bytes:
        """Bytes of a sequence of tokens; special tokens spell nothing."""
        return b"".join(self.bytes[number] or b"" for number in ids)


def begins_inside(spelled: bytes | None) -> bool:
    """Say whether bytes begin inside a character of UTF-8."""
    return bool(spelled) and 0x80 <= (spelled or b"")[0] < 0xC0


def fingerprint(tokenizer: Any) -> str:
    """16 hex digits that tell tokenizers apart: vocabulary, merges, normalizer, pretokenizer and added tokens.

    Padding, truncation, and the special tokens put around a text are not in it, since they change no n-gram and
    no token. Kept for as long as the tokenizer lives.
    """
    kept = kept_with(tokenizer)
    key = "fingerprint", len(tokenizer)
    if key not in kept:
        inner = getattr(tokenizer, "backend_tokenizer", None)
        if inner is None:
            data: Any = sorted(tokenizer.get_vocab().items())
        else:
            data = json.loads(inner.to_str())
            data = [data.get(part) for part in ("model", "normalizer", "pre_tokenizer", "added_tokens")]
        kept[key] = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    return str(kept[key])


def kept_with(tokenizer: Any) -> dict[Any, Any]:
    """What was worked out about a tokenizer, kept for as long as it lives; must not refer to it."""
    return _KNOWN.setdefault(tokenizer, {})


def description(tokenizer: Any) -> dict[str, Any]:
    """The parts of a fast tokenizer as data, as ``tokenizer.json`` holds them.

    Raises:
        ModelError: a slow tokenizer.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise ModelError(
            f"{type(tokenizer).__name__}: must be a fast tokenizer (tokenizer.json); load it with AutoTokenizer"
        )
    data: dict[str, Any] = json.loads(inner.to_str())
    return data


def parts_of(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a normalizer, pretokenizer or decoder, sequences unrolled."""
    if part is None:
        return []
    inner = next((part[name] for name in ("normalizers", "pretokenizers", "decoders") if name in part), None)
    return [part] if inner is None else [step for piece in inner for step in parts_of(piece)]


def _read(tokenizer: Any, size: int) -> Vocabulary:
    """Spell every token."""
    data = description(tokenizer)
    style = _style(data)
    added = {token["id"]: token for token in data["added_tokens"]}
    special = frozenset(number for number, token in added.items() if token["special"])
    spelled: list[bytes | None] = [None] * size
    for token, number in tokenizer.get_vocab().items():
        if number in added:
            spelled[number] = None if number in special else token.encode()
        else:
            spelled[number] = _spell(token, style, bool(data["model"].get("byte_fallback")))
    if style == "sentencepiece":  # an added run of markers is a run of spaces there
        for number in set(added) - special:
            spelled[number] = added[number]["content"].replace(MARKER, " ").encode()
    begun = tokenizer("a", add_special_tokens=False)["input_ids"]
    text = b"".join(spelled[number] or b"" for number in begun)
    prefix = text[: -len(b"a")] if text.endswith(b"a") else b""
    return Vocabulary(
        bytes=tuple(spelled),
        special=special,
        added=frozenset(added) - special,
        style=style,
        prefix=prefix,
        loses=_loses(data, style),
    )


def _style(data: Mapping[str, Any]) -> str:
    """How the tokens are spelled, read off the decoder."""
    decoders = {step["type"] for step in parts_of(data["decoder"])}
    pretokenizers = {step["type"] for step in parts_of(data["pre_tokenizer"])}
    marked = any(step.get("content") == MARKER for step in parts_of(data["normalizer"]))
    if "ByteLevel" in decoders | pretokenizers:
        return "byte-level"
    if marked or "Metaspace" in decoders | pretokenizers:
        return "sentencepiece"
    return "wordpiece" if data["model"]["type"] == "WordPiece" else "plain"


def _spell(token: str, style: str, byte_fallback: bool) -> bytes:
    """Bytes of one token that is not an added one."""
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


def _loses(data: Mapping[str, Any], style: str) -> str:
    """Why a text cannot be had back from its tokens, byte for byte; empty when it can."""
    if style == "wordpiece":
        return "WordPiece drops white space"
    for step in parts_of(data["normalizer"]):
        kind = step["type"]
        if kind in ("NFC", "Prepend") or (kind == "Replace" and step["content"] == MARKER):
            continue  # NFC keeps every text that is in NFC, as nearly all text is
        if kind == "BertNormalizer" and not (step["lowercase"] or step["strip_accents"] or step["clean_text"]):
            continue
        return f"its normalizer {kind} changes text"
    for step in parts_of(data["pre_tokenizer"]):
        if step["type"] in _DROPPING or (step.get("behavior") == "Removed" and not step.get("invert")):
            return f"its pretokenizer {step['type']} drops what it cuts at"
    if style == "plain" and not data["model"].get("byte_fallback"):
        return "its tokens do not cover all bytes" if data["model"].get("unk_token") else ""
    return ""
