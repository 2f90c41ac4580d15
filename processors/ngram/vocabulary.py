"""The ids of a tokenizer, as far as an n-gram table needs them."""

from __future__ import annotations

from typing import Any, NamedTuple

from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint


class TableVocabulary(NamedTuple):
    """The ids that the n-grams of a table may contain.

    Attributes:
        size: number of ids of the tokenizer.
        special: ids that no n-gram contains, sorted.
        fingerprint: hash of the tokenizer's vocabulary; None if the ids come from no tokenizer.

    Example:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> TableVocabulary.of(tiny_tokenizer()).size
        259
    """

    size: int
    special: list[int]
    fingerprint: str | None

    @classmethod
    def of(cls, tokenizer: Any) -> TableVocabulary:
        """Return the vocabulary of a tokenizer."""
        vocabulary = Vocabulary.of(tokenizer, None)
        special = set(vocabulary.special) | {int(number) for number in tokenizer.all_special_ids}
        return cls(len(vocabulary), sorted(special), fingerprint(tokenizer))
