"""How two tokenizers fit together: the alignments of their tokens, and the boundaries of their tokens in texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from logitkit.diagnostics.token_boundaries import Crossings, crossings
from logitkit.files import cache_folder
from logitkit.processors.alignment import AlignmentVocabulary, Match, align
from logitkit.processors.tokens import Vocabulary, fingerprint

METHODS = ("exact", "gac")
Ends = Mapping[str, Sequence[Sequence[int] | None]]


class AlignmentCoverage(NamedTuple):
    """How much of a vocabulary, and of the tokens of the texts, an alignment covers.

    Attributes:
        method: method of the alignment.
        exact: tokens for text that the other tokenizer has too, byte for byte.
        partial: tokens for text that are aligned to tokens of other bytes.
        none: tokens for text that are aligned to nothing.
        exact_in_texts: share of the tokens of the texts that the other tokenizer has too; 0 without tokens.

    Example:
        >>> AlignmentCoverage("exact", 90, 0, 10, 0.97).exact_in_vocabulary
        0.9
    """

    method: str
    exact: int
    partial: int
    none: int
    exact_in_texts: float

    @property
    def exact_in_vocabulary(self) -> float:
        """Share of the tokens for text that the other tokenizer has too."""
        return self.exact / max(1, self.exact + self.partial + self.none)


class TokenizerPair(NamedTuple):
    """How two tokenizers fit together. What is written in one direction comes first from the first to the second.

    Attributes:
        same: whether they are the same tokenizer.
        alignments: coverage of each method, of the tokens of each of the two.
        crossings: for each text the boundaries of each of the two inside tokens of the other; None where one of them
            does not keep the bytes of the text.

    Example:
        >>> TokenizerPair(True, ((), ()), {}).same
        True
    """

    same: bool
    alignments: tuple[tuple[AlignmentCoverage, ...], tuple[AlignmentCoverage, ...]]
    crossings: Mapping[str, tuple[Crossings, Crossings] | None]


def tokenizer_pair(
    tokenizers: Sequence[Any],
    ids: Sequence[Sequence[int]],
    ends: Sequence[Ends],
    *,
    methods: Sequence[str] = METHODS,
) -> TokenizerPair:
    """Return the alignment of two vocabularies and the token boundaries that cross in texts.

    Args:
        tokenizers: two fast tokenizers.
        ids: for each of them the tokens of all texts.
        ends: for each of them the byte behind each token, by text and part of the text; see
            `logitkit.diagnostics.token_boundaries.token_ends`.
        methods: methods of `logitkit.processors.alignment.align`; ``mined`` takes up to half a minute for large
            vocabularies, unless the cache has the alignment.

    Example:
        >>> from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
        >>> ends = {"text": [[1, 2, 3]]}, {"text": [[2, 3]]}
        >>> pair = tokenizer_pair([tiny_tokenizer(), foreign_tokenizer()], [[0], [0]], ends)
        >>> pair.crossings["text"]  # one of two boundaries, and none of one
        (Crossings(boundaries=2, crossing=1), Crossings(boundaries=1, crossing=0))
    """
    sides = [_side(tokenizer) for tokenizer in tokenizers]
    covered = [
        tuple(_coverage(method, own, other, tokens) for method in methods)
        for own, other, tokens in ((sides[0], sides[1], ids[0]), (sides[1], sides[0], ids[1]))
    ]
    found = {name: _crossings(parts, ends[1][name]) for name, parts in ends[0].items()}
    return TokenizerPair(fingerprint(tokenizers[0]) == fingerprint(tokenizers[1]), (covered[0], covered[1]), found)


def _side(tokenizer: Any) -> AlignmentVocabulary:
    """Return the vocabulary of a tokenizer for an alignment, without a model."""
    end = tokenizer.eos_token_id
    return AlignmentVocabulary(
        tokenizer=tokenizer, vocabulary=Vocabulary.of(tokenizer), end_tokens=() if end is None else (end,)
    )


def _coverage(
    method: str, own: AlignmentVocabulary, other: AlignmentVocabulary, ids: Sequence[int]
) -> AlignmentCoverage:
    """Return how much of a vocabulary an alignment to another one covers."""
    alignment = align(method, own, other, cache=cache_folder() / "alignments")
    kinds = alignment.matches.numpy()
    text = np.zeros(len(kinds), dtype=bool)  # an end token is no text, though it has a partner
    text[own.text_tokens()] = True
    exact, partial, none = (int(((kinds == kind) & text).sum()) for kind in (Match.EXACT, Match.PARTIAL, Match.NONE))
    used = kinds[np.asarray(ids, dtype=np.int64)]
    return AlignmentCoverage(method, exact, partial, none, float((used == Match.EXACT).mean()) if len(used) else 0.0)


def _crossings(
    first: Sequence[Sequence[int] | None], second: Sequence[Sequence[int] | None]
) -> tuple[Crossings, Crossings] | None:
    """Return the crossing boundaries of the parts of a text together; None where a part has no boundaries in bytes."""
    both: list[list[Crossings]] = [[], []]
    for own, other in zip(first, second, strict=True):
        if own is None or other is None:
            return None
        both[0].append(crossings(own, other))
        both[1].append(crossings(other, own))
    first_sum, second_sum = (Crossings(*map(sum, zip(*each, strict=True))) for each in both)
    return first_sum, second_sum
