"""The vocabulary of the generating model, also where another engine runs the model."""

from __future__ import annotations

from logitkit.processors.engine.binding import Binding
from logitkit.processors.tokens.vocabulary import Vocabulary, vocabulary_of


def call_vocabulary(binding: Binding) -> Vocabulary:
    """Return the vocabulary of the generating model; in engines that hide the model, that of the tokenizer.

    Raises:
        ModelError: the tokenizer is a slow one.
    """
    if not binding.has_model:
        return Vocabulary.of(binding.tokenizer)
    return vocabulary_of(binding.model, binding.tokenizer)
