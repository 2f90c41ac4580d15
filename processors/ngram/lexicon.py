"""Conversion of other n-gram models into tables: their words as token ids, and their n-grams as levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitkit.errors import ModelError
from logitkit.processors.ngram.counting import Ids, Level, context_starts
from logitkit.processors.ngram.vocabulary import TableVocabulary

WordKind = Literal["tokens", "ids"]
PADDING_WORDS = ("<s>", "</s>", "<UNK>", "<unk>")  # padding and the unknown word, which correspond to no token


class Lexicon:
    """The token ids of the words of another model.

    The padding words get ids beyond the tokenizer, so that their counts are kept but no token of a text equals them.

    Args:
        tokenizer: of the generating model.
        words: whether words are tokens in the tokenizer's spelling, or decimal ids.
        owner: name at the start of error messages.
    """

    def __init__(self, tokenizer: Any, words: WordKind, owner: str) -> None:
        self.vocabulary, self.owner, self.words = TableVocabulary.of(tokenizer), owner, words
        self._ids = {mark: self.vocabulary.size + index for index, mark in enumerate(PADDING_WORDS)}
        special = set(self.vocabulary.special)
        for token, number in tokenizer.get_vocab().items():
            if number not in special:
                self._ids[token if words == "tokens" else str(number)] = number

    @property
    def base(self) -> int:
        """One more than the largest id."""
        return self.vocabulary.size + len(PADDING_WORDS)

    def __call__(self, word: Any) -> int:
        """Return the id of a word.

        Raises:
            ModelError: no token has this spelling.
        """
        if word not in self._ids:
            kind = "token of the tokenizer" if self.words == "tokens" else "token id in decimal"
            raise ModelError(
                f"{self.owner}: every word must be a {kind}, got {word!r}; "
                "fit it on tokenizer.convert_ids_to_tokens(ids)"
                + (", or pass words='ids'" if self.words == "tokens" else "")
            )
        return int(self._ids[word])


class ArrangedLevel(NamedTuple):
    """The n-grams of one order as a level without counts.

    Attributes:
        level: keys and starts.
        entries: entry of each n-gram of the input, ``[n-grams]``.
    """

    level: Level
    entries: NDArray[np.int64]


def arrange(grams: Sequence[Ids], base: int) -> list[ArrangedLevel]:
    """Sort n-grams into levels. Missing beginnings and ends of n-grams become entries too.

    Args:
        grams: for each order the different n-grams, ``[n-grams, order]``, in any order.
        base: one more than the largest id.
    """
    complete = list(grams)
    for order in range(len(grams) - 1, 0, -1):
        longer = complete[order]
        complete[order - 1] = np.concatenate([complete[order - 1], longer[:, :-1], longer[:, 1:]])
    arranged: list[ArrangedLevel] = []
    for order, originals in enumerate(grams, 1):
        parents = np.zeros(len(complete[order - 1]), dtype=np.int64)
        for column, shorter in enumerate(arranged):
            parents = np.searchsorted(shorter.level.keys, parents * base + complete[order - 1][:, column])
        unsorted = parents * base + complete[order - 1][:, -1]
        keys = np.unique(unsorted)
        starts = context_starts(keys, base, len(arranged[-1].level) if arranged else 1)
        arranged.append(ArrangedLevel(Level(keys, None, starts), np.searchsorted(keys, unsorted[: len(originals)])))
    return arranged
