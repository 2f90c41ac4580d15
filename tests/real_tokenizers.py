"""Real tokenizers and their rules: the rules are read from the cache folder after the first time, as users' are.

`tests/processors/tokens/test_tokenizer_tables.py` shows that rules read from a file are those that were computed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from logitkit.files import cache_folder
from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.tokens import CanonicalRules, Vocabulary
from logitkit.processors.tokens.tokenizer_tables import FOLDER, TokenizerTables


@functools.cache
def real_tokenizer(path: Path) -> Any:
    """Return the tokenizer in a folder; tests may not change it."""
    return PreTrainedTokenizerFast.from_pretrained(path)


@functools.cache
def real_covers(path: Path) -> Covers:
    """Return the canonical covers of the tokenizer in a folder."""
    tokenizer = real_tokenizer(path)
    tables = TokenizerTables(tokenizer, len(tokenizer), cache_folder() / FOLDER)
    return Covers.of(tokenizer, Vocabulary.of(tokenizer, tables=tables), tables=tables)


def real_rules(path: Path) -> CanonicalRules:
    """Return the rules of the tokenizer in a folder."""
    rules = real_covers(path).rule
    assert isinstance(rules, CanonicalRules)
    return rules
