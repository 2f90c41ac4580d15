"""The choice between rules and re-encoding for the canonical token sequences of a tokenizer."""

from __future__ import annotations

import warnings
from typing import Any

from logitkit.processors.tokens.canonical_rules import CanonicalRules
from logitkit.processors.tokens.reencoding import Reencoding
from logitkit.processors.tokens.rule_support import unsupported_part
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary


def canonical_rules_for(tokenizer: Any, vocabulary: Vocabulary, tables: TokenizerTables | None = None) -> Reencoding:
    """Return `CanonicalRules` where a tokenizer has rules, else `Reencoding` with a warning.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its vocabulary, of the size of the model.
        tables: the tokenizer's tables; None: everything is computed.

    Raises:
        ModelError: the tokenizer is a slow one.

    >>> from logitkit.processors.tokens import Vocabulary
    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> type(canonical_rules_for(tiny_tokenizer(), Vocabulary.of(tiny_tokenizer()))).__name__
    'CanonicalRules'
    """
    tables = tables or TokenizerTables(tokenizer, len(vocabulary))
    unsupported = unsupported_part(tables.settings)
    if unsupported is None:
        return CanonicalRules(tokenizer, vocabulary, tables)
    warnings.warn(
        f"canonical covers: the tokenizer's {unsupported} has no rules. Re-encoding finds the next tokens "
        "instead, which takes up to seconds per byte. "
        "For short texts, covers='all' is an alternative.",
        stacklevel=2,
    )
    return Reencoding(tokenizer, vocabulary, tables)
