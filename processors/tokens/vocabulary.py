"""The byte string of every token, for any fast tokenizer of transformers.

A token stands for bytes. ``Ġ``, ``▁`` and ``<0x0A>`` are notations for bytes that depend on the tokenizer. The bytes
of the tokens of a text, joined, are the text.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitkit.errors import ModelError
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.special_texts import produced_special_tokens
from logitkit.processors.tokens.token_bytes import bytes_of_tokens, loss_reason, lost_texts, style_of
from logitkit.processors.tokens.tokenizer_description import description, tokenizer_cache
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    r"""The byte string of each token of a tokenizer.

    Attributes:
        token_bytes: bytes of each token id; None for special tokens and for ids that the tokenizer lacks. The length
            is the number of ids, which may exceed the tokenizer's (padded vocabularies).
        special: ids of special tokens.
        added: ids of added tokens that are not special. The tokenizer looks for these in a text before it does
            anything else.
        style: how the tokenizer writes bytes: ``byte-level``, ``sentencepiece``, ``wordpiece`` or ``plain``.
        prefix: bytes that the tokenizer puts before every text (``b" "`` or ``b""``).
        loss_reason: why encoding loses bytes of a text, or an empty string. A tokenizer that loses bytes has no
            distribution over bytes.
        loses: the few texts that encoding changes although it keeps all others, such as a literal ``▁`` where this
            character stands for a space. No token sequence that the tokenizer writes spells such a text.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> vocabulary = Vocabulary.of(tiny_tokenizer(), 272)
    >>> len(vocabulary), vocabulary.style, sorted(vocabulary.special)
    (272, 'byte-level', [256, 257, 258])
    >>> vocabulary.join(tiny_tokenizer()("né")["input_ids"])
    b'n\xc3\xa9'
    """

    token_bytes: tuple[bytes | None, ...]
    special: frozenset[int]
    added: frozenset[int]
    style: str
    prefix: bytes
    loss_reason: str = ""
    loses: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        size: int | None = None,
        *,
        truncate: bool = False,
        tables: TokenizerTables | None = None,
    ) -> Vocabulary:
        """Read the vocabulary of a tokenizer; the result is cached for as long as the tokenizer lives.

        Args:
            tokenizer: a fast tokenizer of transformers.
            size: number of ids; None: as many as the tokenizer has. More ids are padding. Fewer ids are allowed where
                the missing ones are added tokens, such as those of images, which the model then cannot write.
            truncate: allow fewer ids whatever the missing ones are.
            tables: the tokenizer's tables for this size; None: everything is computed.

        Raises:
            ModelError: the tokenizer is a slow one, or has more ids than ``size``.
        """
        tables = TokenizerTables(tokenizer, size or 0) if tables is None else tables
        cache, known = tokenizer_cache(tokenizer), ("ids", len(tokenizer))
        if known not in cache:
            cache[known] = tuple(tables.value("ids", lambda: _id_counts(tokenizer)))
        count, fewest = cache[known]
        size = count if size is None else size
        if not truncate and size < fewest:
            raise ModelError(f"Vocabulary: size must be at least the tokenizer's {count} ids, got {size}")
        key = "vocabulary", count, size
        if key not in cache:
            cache[key] = _unpacked(tables, size, lambda: _read(tokenizer, max(size, count)))
        return cache[key]  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.token_bytes)

    @cached_property
    def ids_of(self) -> Mapping[bytes, tuple[int, ...]]:
        """Ids of each byte string in ascending order; several where the vocabulary has duplicates."""
        ids: dict[bytes, list[int]] = {}
        for number, token_bytes in enumerate(self.token_bytes):
            if token_bytes:
                ids.setdefault(token_bytes, []).append(number)
        return {token_bytes: tuple(numbers) for token_bytes, numbers in ids.items()}

    def join(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of a sequence of tokens; special tokens and absent ids have none."""
        return b"".join(self.token_bytes[number] or b"" for number in ids)


def vocabulary_of(model: Any, tokenizer: Any) -> Vocabulary:
    """Return the vocabulary of a model, with one entry for each of its logits.

    Where the tokenizer has fewer ids, the others are padding. Where it has more, its last tokens are left out, since
    the model cannot write them.

    Args:
        model: a model of transformers, or its configuration.
        tokenizer: its fast tokenizer.

    Raises:
        ModelError: the tokenizer is a slow one.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> len(tiny_tokenizer()), len(vocabulary_of(tiny_model(), tiny_tokenizer()))
    (259, 272)
    """
    return Vocabulary.of(tokenizer, vocabulary_size(model), truncate=True)


def fingerprint(tokenizer: Any) -> str:
    """Return 16 hexadecimal digits that identify a tokenizer; cached for as long as the tokenizer lives.

    The digits are a hash of the vocabulary, merges, normalizer, pretokenizer and added tokens. Padding, truncation and
    the special tokens put around a text are left out, since they change no token of the text itself.

    Args:
        tokenizer: a tokenizer of transformers, fast or slow.

    >>> from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
    >>> len(fingerprint(tiny_tokenizer())), fingerprint(tiny_tokenizer()) == fingerprint(foreign_tokenizer())
    (16, False)
    """
    return fingerprints(tokenizer)[0]


def fingerprints(tokenizer: Any) -> tuple[str, ...]:
    """Return the `fingerprint` of a tokenizer, then those that it had before each of its last added tokens.

    A tokenizer that was extended by added tokens, as for fine-tuning, keeps the ids of all earlier tokens.

    Args:
        tokenizer: a tokenizer of transformers, fast or slow; a slow one has one fingerprint.

    >>> import copy
    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> extended = copy.deepcopy(tiny_tokenizer())
    >>> extended.add_tokens(["<tool>"])
    1
    >>> fingerprints(extended)[1] == fingerprint(tiny_tokenizer())
    True
    """
    cache = tokenizer_cache(tokenizer)
    key = "fingerprints", len(tokenizer)
    if key not in cache:
        inner = getattr(tokenizer, "backend_tokenizer", None)
        if inner is None:
            state = json.dumps(sorted(tokenizer.get_vocab().items()), sort_keys=True)
            cache[key] = (hashlib.sha256(state.encode()).hexdigest()[:16],)
        else:
            cache[key] = _fingerprints_of(json.loads(inner.to_str()))
    return cache[key]  # type: ignore[no-any-return]


def _fingerprints_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the hashes of [model, normalizer, pre_tokenizer, added tokens] as JSON, with all added tokens first.

    A vocabulary has tens of megabytes and may have thousands of added tokens, so its text is hashed once.
    """
    fixed = json.dumps([data.get(part) for part in ("model", "normalizer", "pre_tokenizer")], sort_keys=True)
    begun, found = hashlib.sha256(f"{fixed[:-1]}, ".encode()), list[str]()
    added = data.get("added_tokens")
    pieces = ["null"] if added is None else ["[", *(json.dumps(token, sort_keys=True) for token in added)]
    for number, piece in enumerate(pieces):
        begun.update((", " if number > 1 else "").encode() + piece.encode())
        ended = begun.copy()
        ended.update(b"]" if added is None else b"]]")
        found.append(ended.hexdigest()[:16])
    return tuple(reversed(found))


def _id_counts(tokenizer: Any) -> tuple[int, int]:
    """Return the number of ids of a tokenizer, and the number of ids up to its last token that is not an added one."""
    added = tokenizer.added_tokens_decoder
    numbers = tokenizer.get_vocab().values()
    return max(numbers, default=-1) + 1, max((number for number in numbers if number not in added), default=-1) + 1


def _unpacked(tables: TokenizerTables, size: int, read: Callable[[], Vocabulary]) -> Vocabulary:
    """Return the vocabulary from the tables of a tokenizer, as its first ``size`` ids."""
    whole = functools.cache(read)  # read at most once, and only where a table lacks
    lengths = tables.array("token_lengths", lambda: _lengths(whole().token_bytes[:size]))
    joined = tables.array("token_bytes", lambda: _joined(whole().token_bytes[:size])).tobytes()
    special = tables.array("special", lambda: np.array(sorted(whole().special), dtype=np.int64))
    added = tables.array("added", lambda: np.array(sorted(whole().added), dtype=np.int64))
    style, prefix, reason, loses = tables.value(
        "vocabulary", lambda: [whole().style, whole().prefix.hex(), whole().loss_reason, list(whole().loses)]
    )
    ends = np.cumsum(np.maximum(lengths, 0)).tolist()
    return Vocabulary(
        token_bytes=tuple(
            None if length < 0 else joined[end - length : end]
            for end, length in zip(ends, lengths.tolist(), strict=True)
        ),
        special=frozenset(special[special < size].tolist()),
        added=frozenset(added[added < size].tolist()),
        style=style,
        prefix=bytes.fromhex(prefix),
        loss_reason=reason,
        loses=tuple(loses),
    )


def _lengths(token_bytes: Sequence[bytes | None]) -> NDArray[np.int32]:
    """Return the number of bytes of each token; -1 for tokens without bytes (None)."""
    return np.array([-1 if text is None else len(text) for text in token_bytes], dtype=np.int32)


def _joined(token_bytes: Sequence[bytes | None]) -> NDArray[np.uint8]:
    """Return the bytes of all tokens, one after the other."""
    return np.frombuffer(b"".join(text or b"" for text in token_bytes), dtype=np.uint8)


def _read(tokenizer: Any, size: int) -> Vocabulary:
    """The vocabulary of a fast tokenizer, read anew."""
    data = description(tokenizer)
    style = style_of(data)
    token_bytes = bytes_of_tokens(data, tokenizer.get_vocab(), style, size)
    special = frozenset(token["id"] for token in data["added_tokens"] if token["special"])
    produced = produced_special_tokens(data)
    unknown = {data["model"].get("unk_token"), tokenizer.unk_token}
    swallowed = next((token for token in produced if token not in unknown), None)
    reason = loss_reason(data, style)
    if not reason and swallowed is not None:
        reason = f"its model writes the text {swallowed!r} as the special token of that name"
    encoded = tokenizer("a", add_special_tokens=False)["input_ids"]
    text = b"".join(token_bytes[number] or b"" for number in encoded)
    return Vocabulary(
        token_bytes=tuple(token_bytes),
        special=special,
        added=frozenset(token["id"] for token in data["added_tokens"]) - special,
        style=style,
        prefix=text[: -len(b"a")] if text.endswith(b"a") else b"",
        loss_reason=reason,
        loses=(*lost_texts(data, style), *(f"the text {token}, which becomes a special token" for token in produced)),
    )
