"""Which characters of a text a tokenizer writes in parts, in byte tokens or as the unknown token, by script."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens import Vocabulary

KINDS = {"N": "numbers", "P": "punctuation", "S": "symbols and emoji", "Z": "spaces", "C": "control characters"}
SCRIPTS = {"CJK": "Han", "IDEOGRAPHIC": "Han", "KATAKANA-HIRAGANA": "Katakana", "COMBINING": "combining marks"}
FORMS = ("FULLWIDTH", "HALFWIDTH")  # words before the script


class ScriptCoverage(NamedTuple):
    """How a tokenizer writes the characters of one script in a text.

    Attributes:
        characters: characters of the script.
        in_bytes: those that need more than one token, so that a token ends inside the character, or a byte token of
            SentencePiece.
        unknown: those that become the unknown token.

    Example:
        >>> ScriptCoverage(10, 2, 0).in_bytes
        2
    """

    characters: int
    in_bytes: int
    unknown: int

    def plus(self, other: ScriptCoverage) -> ScriptCoverage:
        """Return the coverage of two texts together."""
        return ScriptCoverage(*(own + more for own, more in zip(self, other, strict=True)))


def script_of(character: str) -> str:
    """Return the script of a letter or mark; of another character its kind, such as punctuation.

    The script is the first word of the character's name in Unicode, a heuristic: Latin, Cyrillic, Han, Hiragana, ...

    Example:
        >>> [script_of(character) for character in "aж日,7🙂"]
        ['Latin', 'Cyrillic', 'Han', 'punctuation', 'numbers', 'symbols and emoji']
    """
    category = unicodedata.category(character)[0]
    if category in KINDS:
        return KINDS[category]
    words = [word for word in unicodedata.name(character, "OTHER LETTERS").split() if word not in FORMS]
    return SCRIPTS.get(words[0], words[0].capitalize())


def script_coverage(
    tokenizer: Any, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
) -> dict[str, ScriptCoverage]:
    """Return how a tokenizer writes the characters of a text, by script.

    Args:
        tokenizer: a fast tokenizer.
        text: the text.
        ids: its tokens.
        offsets: first character of each token, and the one behind its last, as ``return_offsets_mapping`` gives them.

    Example:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> encoded = tiny_tokenizer()("aé", return_offsets_mapping=True)
        >>> script_coverage(tiny_tokenizer(), "aé", encoded["input_ids"], encoded["offset_mapping"])
        {'Latin': ScriptCoverage(characters=2, in_bytes=1, unknown=0)}
    """
    vocabulary = Vocabulary.of(tokenizer)
    byte_tokens, unknown_token = _byte_tokens(tokenizer, vocabulary), _unknown_token(tokenizer)
    # A token of ASCII alone is no part of another character, even where its offsets name one.
    parts = [not (vocabulary.token_bytes[token] or b"\xff").isascii() for token in ids]
    pieces = _covering(len(text), [pair for pair, part in zip(offsets, parts, strict=True) if part])
    bytes_ = _covering(len(text), [pair for pair, token in zip(offsets, ids, strict=True) if token in byte_tokens])
    unknown = _covering(len(text), [pair for pair, token in zip(offsets, ids, strict=True) if token == unknown_token])
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    missing, split = unknown > 0, ((pieces > 1) & (points > 0x7F)) | (bytes_ > 0)
    found: dict[str, ScriptCoverage] = {}
    for point, count, in_bytes, lost in _by_character(points, split & ~missing, missing):
        script, one = script_of(chr(point)), ScriptCoverage(count, in_bytes, lost)
        found[script] = one.plus(found[script]) if script in found else one
    return found


def together(coverages: Sequence[Mapping[str, ScriptCoverage]]) -> dict[str, ScriptCoverage]:
    """Return the coverage of several texts together, the script of most characters first.

    Example:
        >>> together([{"Latin": ScriptCoverage(2, 1, 0)}, {"Latin": ScriptCoverage(3, 0, 0)}])
        {'Latin': ScriptCoverage(characters=5, in_bytes=1, unknown=0)}
    """
    whole: dict[str, ScriptCoverage] = {}
    for coverage in coverages:
        for script, one in coverage.items():
            whole[script] = one.plus(whole[script]) if script in whole else one
    return dict(sorted(whole.items(), key=lambda pair: -pair[1].characters))


def _byte_tokens(tokenizer: Any, vocabulary: Vocabulary) -> frozenset[int]:
    """Return the ids of the tokens ``<0x00>`` to ``<0xFF>`` that stand for a byte."""
    named = {byte: tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in range(256)}
    size = len(vocabulary)
    return frozenset(
        token
        for byte, token in named.items()
        if token is not None and token < size and vocabulary.token_bytes[token] == bytes([byte])
    )


def _unknown_token(tokenizer: Any) -> int | None:
    """Return the id that the model of the tokenizer writes for what it does not know; None where it has none.

    The unknown token of the settings is another one in some tokenizers, such as the end token in that of GPT-2.
    """
    model = tokenizer.backend_tokenizer.model
    name = getattr(model, "unk_token", None) if hasattr(model, "unk_token") else tokenizer.unk_token
    found: int | None = None if name is None else model.token_to_id(name)
    return found


def _covering(length: int, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return how many of the spans hold each character, ``[length]``."""
    changes = np.zeros(length + 1, dtype=np.int64)
    if offsets:
        begins, ends = np.asarray(offsets, dtype=np.int64).T
        np.add.at(changes, begins, 1)
        np.add.at(changes, ends, -1)
    return changes.cumsum()[:length]


def _by_character(
    points: NDArray[np.uint32], split: NDArray[np.bool_], missing: NDArray[np.bool_]
) -> list[tuple[int, int, int, int]]:
    """Return each code point with how often it occurs, is written in bytes, and is unknown."""
    distinct, places, counts = np.unique(points, return_inverse=True, return_counts=True)
    sums = [
        np.bincount(places, weights=flags, minlength=len(distinct)).astype(int).tolist() for flags in (split, missing)
    ]
    return list(zip(distinct.tolist(), counts.tolist(), *sums, strict=True))
