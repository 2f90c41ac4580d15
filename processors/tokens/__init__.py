"""Tokens and bytes of a tokenizer: vocabulary, canonical token sequences, re-encoding."""

from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint, vocabulary_of

__all__ = ["Retokenizer", "Vocabulary", "fingerprint", "vocabulary_of"]
