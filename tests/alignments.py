"""Vocabularies to align: two helpers with merged tokens, and a main model with single bytes."""

from __future__ import annotations

from foreign import foreign_model, foreign_tokenizer, sentencepiece_tokenizer
from logitkit.processors.alignment import AlignmentVocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer

HELPERS = {"byte-level": foreign_tokenizer, "sentencepiece": sentencepiece_tokenizer}


def sides(style: str = "byte-level") -> tuple[AlignmentVocabulary, AlignmentVocabulary]:
    """The vocabularies of a helper with merged tokens and of a main model with single bytes."""
    helper = AlignmentVocabulary.of(foreign_model(), HELPERS[style]())
    return helper, AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())


def token(side: AlignmentVocabulary, text: bytes) -> int:
    """The id of the token with these bytes, the last of several."""
    return side.vocabulary.ids_of[text][-1]
