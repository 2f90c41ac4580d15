"""Tokens of a tokenizer and their bytes: vocabulary, canonical token sequences, retokenization."""

from logitkit.processors.tokens.canonical_rules import CanonicalRules
from logitkit.processors.tokens.reencoding import Reencoding
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.rule_choice import canonical_rules_for
from logitkit.processors.tokens.token_agreement import TokenAgreement
from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint, vocabulary_of

__all__ = [
    "CanonicalRules",
    "Reencoding",
    "Retokenizer",
    "TokenAgreement",
    "Vocabulary",
    "canonical_rules_for",
    "fingerprint",
    "vocabulary_of",
]
