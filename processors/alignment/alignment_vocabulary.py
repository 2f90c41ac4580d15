"""A model's vocabulary as an alignment needs it: token bytes, end tokens and input embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from logitkit.processors.model_facts import end_tokens, id_tuple
from logitkit.processors.tokens.vocabulary import Vocabulary, vocabulary_of


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignmentVocabulary:
    """The vocabulary of one of the two models of an alignment.

    Attributes:
        tokenizer: a fast tokenizer.
        vocabulary: the bytes of each token, one entry for each logit of the model.
        end_tokens: ids of the tokens that end a text; see `end`.
        embeddings: input embeddings, ``[size, width]``; needed by the method ``embedding`` only.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    >>> main.size, main.end_tokens, len(main.text_tokens())
    (272, (257,), 256)
    """

    tokenizer: Any
    vocabulary: Vocabulary
    end_tokens: tuple[int, ...]
    embeddings: Tensor | None = None

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> AlignmentVocabulary:
        """Read the vocabulary of a model and its tokenizer.

        Args:
            model: a model of transformers. A model without input embeddings, such as `ByteModel`, is allowed.
            tokenizer: its fast tokenizer.

        Raises:
            ModelError: the tokenizer is a slow one.
        """
        vocabulary = vocabulary_of(model, tokenizer)
        ends = tuple(end for end in end_tokens(model, tokenizer) if end < len(vocabulary))
        table = model.get_input_embeddings()
        embeddings = None if table is None else table.weight.detach()
        return cls(tokenizer=tokenizer, vocabulary=vocabulary, end_tokens=ends, embeddings=embeddings)

    @property
    def size(self) -> int:
        """Number of ids, which is the number of the model's logits."""
        return len(self.vocabulary)

    @property
    def end_marks(self) -> tuple[int, ...]:
        """The end tokens that are no text: special and added tokens.

        An ordinary token, such as a newline, may end a row too; it keeps its bytes and is aligned as text.
        """
        vocabulary = self.vocabulary
        return tuple(end for end in self.end_tokens if end in vocabulary.added or not vocabulary.token_bytes[end])

    @property
    def end(self) -> int | None:
        """The token to which end tokens of the other model are aligned; None without end tokens.

        The tokenizer's own end token where it is one of ``end_tokens``, else the first that is no text.
        """
        own = id_tuple(self.tokenizer.eos_token_id)
        choices = [*(end for end in own if end in self.end_tokens), *self.end_marks, *self.end_tokens]
        return next(iter(choices), None)

    def text_tokens(self) -> list[int]:
        """Return the ids of tokens that stand for bytes of text: no special token, no end mark, no absent id."""
        marks = set(self.end_marks)
        return [
            token for token, token_bytes in enumerate(self.vocabulary.token_bytes) if token_bytes and token not in marks
        ]

    def ended_by(self, ends: Iterable[int]) -> AlignmentVocabulary:
        """Return the vocabulary with other end tokens; ids beyond the vocabulary are left out."""
        return dataclasses.replace(self, end_tokens=tuple(end for end in ends if end < self.size))
