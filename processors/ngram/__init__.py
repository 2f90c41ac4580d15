"""N-gram tables and style injection, arXiv:2601.16224.

Tables: `NgramTable` with its `Smoothing`, counted in `Documents`, `TextFiles` or an `NltkCorpus`; `TableVocabulary`,
the ids that a table may contain. Logits processors: `NgramStyle` with a table, `NgramContext` with the prompts of the
call.
"""

from __future__ import annotations

from logitkit.processors.ngram.context import NgramContext, table_of_groups
from logitkit.processors.ngram.corpus import Documents, TextFiles
from logitkit.processors.ngram.formulas import StyleRule, default_order_weights
from logitkit.processors.ngram.nltk_corpus import NltkCorpus
from logitkit.processors.ngram.smoothing import SMOOTHING_NAMES, Smoothing
from logitkit.processors.ngram.style import NgramStyle
from logitkit.processors.ngram.table import NgramTable
from logitkit.processors.ngram.vocabulary import TableVocabulary

__all__ = [
    "SMOOTHING_NAMES",
    "Documents",
    "NgramContext",
    "NgramStyle",
    "NgramTable",
    "NltkCorpus",
    "Smoothing",
    "StyleRule",
    "TableVocabulary",
    "TextFiles",
    "default_order_weights",
    "table_of_groups",
]
