"""The rules of the generating model's tokenizer, built once for each tokenizer object and kept in the cache folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitkit.processors.engine.binding import Binding
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.canonical_rules import CanonicalRules
from logitkit.processors.tokens.reencoding import Context, Reencoding
from logitkit.processors.tokens.rule_support import unsupported_part
from logitkit.processors.tokens.tokenizer_description import description, tokenizer_cache
from logitkit.processors.tokens.tokenizer_tables import FOLDER, TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

SAMPLE = "She'll pay 1,234  euros (or more).\n\n\tdef f(x): return x + 1  # 日本 é\n"  # common windows of text


@dataclass(frozen=True, eq=False)
class RuleSource:
    """Where the rules of a tokenizer come from; pickled in place of the rules, which are built again.

    Attributes:
        tokenizer: a fast tokenizer of transformers.
        size: number of ids of the model; None: as many as the tokenizer has.
        folder: folder of the tables of tokenizers; None: nothing is read or written.

    Example:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> len(RuleSource(tiny_tokenizer(), 272).rules().vocabulary)
        272
    """

    tokenizer: Any
    size: int | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, binding: Binding) -> RuleSource:
        """Return the source for the generating model of a call."""
        return cls.of_model(binding.model if binding.has_model else None, binding.tokenizer, binding.cache)

    @classmethod
    def of_model(cls, model: Any, tokenizer: Any, cache: Path | None) -> RuleSource:
        """Return the source for a model and its tokenizer.

        Args:
            model: a model of transformers; None: there is none, and the tokenizer's own ids count.
            tokenizer: a fast tokenizer of transformers.
            cache: the cache folder; None: nothing is read or written.
        """
        size = None if model is None else vocabulary_size(model)
        return cls(tokenizer, size, None if cache is None else cache / FOLDER)

    def rules(self) -> Reencoding:
        """Return the rules, which are built once for each tokenizer object.

        Raises:
            ModelError: the tokenizer is a slow one.
        """
        cache, key = tokenizer_cache(self.tokenizer), ("canonical", self.size)
        if key not in cache:
            size = len(self.tokenizer) if self.size is None else self.size
            tables = TokenizerTables(self.tokenizer, size, self.folder)
            vocabulary = Vocabulary.of(self.tokenizer, self.size, truncate=self.size is not None, tables=tables)
            cache[key] = new_rules(self.tokenizer, vocabulary, tables)
            tables.save()
        return cache[key]  # type: ignore[no-any-return]


def new_rules(tokenizer: Any, vocabulary: Vocabulary, tables: TokenizerTables) -> Reencoding:
    """Return `CanonicalRules` where a tokenizer has rules, else `Reencoding`.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its vocabulary, of the size of the model.
        tables: the tokenizer's tables.
    """
    if unsupported_part(tables.settings) is not None:
        return Reencoding(tokenizer, vocabulary, tables)
    rules = CanonicalRules(tokenizer, vocabulary, tables)
    if tables.is_kept:
        rules.positions.keep(tables, lambda: _follow(rules, SAMPLE))
    return rules


def warn_without_rules(tokenizer: Any, rules: Reencoding) -> None:
    """Warn that masks of a whole vocabulary are slow where a tokenizer has no rules.

    Args:
        tokenizer: a fast tokenizer of transformers.
        rules: what `RuleSource.rules` returns for it.
    """
    if not isinstance(rules, CanonicalRules):
        warnings.warn(
            f"canonical: the tokenizer's {unsupported_part(description(tokenizer))} has no rules; every token of the "
            "vocabulary is encoded again at each step, which takes up to seconds",
            stacklevel=3,
        )


def _follow(rules: CanonicalRules, text: str) -> None:
    """Find the successors of each beginning of the encoding of a text."""
    context: Context = ()
    for token in rules.encode(text):
        rules.successors(context)
        context = rules.extend(context, token)
