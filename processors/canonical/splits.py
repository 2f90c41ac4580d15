"""Random re-splits of a token sequence: the same bytes in more tokens.

StochasTok, arXiv:2506.01687, splits the tokens of training texts in this way, so that a model sees what its tokens are
made of. `TokenSplits` follows the rule of the released code: a share of the number of tokens is the number of tries.
Each try draws a place of the sequence and replaces the token there by one of its pairs, all with the same probability.
A pair of a token is two tokens whose bytes, joined, are those of the token. A token without a pair stays, and the parts
of a token can be split again.

Departures: there is at least one try, so that short prompts are split too; special tokens and added tokens are neither
split nor parts of a pair.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property

from logitkit.processors.tokens.vocabulary import Vocabulary


class TokenSplits:
    """Replaces tokens of a sequence by pairs of tokens with the same bytes.

    Args:
        vocabulary: the tokens as bytes.

    Example:
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> tokenizer = foreign_tokenizer()
        >>> splits = TokenSplits(Vocabulary.of(tokenizer))
        >>> the, = tokenizer("the")["input_ids"]
        >>> [tokenizer.convert_ids_to_tokens(list(pair)) for pair in splits.pairs(the)]
        [['th', 'e']]
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @cached_property
    def _id_of(self) -> dict[bytes, int]:
        """The id of each byte string; the last one where there are several, which is no token of a byte fallback."""
        left_out = self.vocabulary.special | self.vocabulary.added
        texts = enumerate(self.vocabulary.token_bytes)
        return {text: number for number, text in texts if text and number not in left_out}

    def pairs(self, token: int) -> list[tuple[int, int]]:
        """Return the pairs of a token, by the length of the first part; special and added tokens have none.

        Args:
            token: an id; ids beyond the vocabulary have no pairs.
        """
        if token >= len(self.vocabulary) or token in self.vocabulary.special | self.vocabulary.added:
            return []
        text = self.vocabulary.token_bytes[token] or b""
        cuts = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
        return [
            (self._id_of[first], self._id_of[second])
            for first, second in cuts
            if first in self._id_of and second in self._id_of
        ]

    def resplit(self, tokens: Sequence[int], *, share: float = 0.1, seed: int = 0, number: int = 1) -> list[int]:
        """Return tokens with the same bytes; the draws follow from the arguments alone.

        Args:
            tokens: token ids.
            share: number of tries, as a share of the number of tokens; at least one try.
            seed: a different seed gives independent draws.
            number: number of the split; different numbers give independent draws.

        Example:
            >>> from logitkit.registry.laws import foreign_tokenizer
            >>> tokenizer = foreign_tokenizer()
            >>> splits = TokenSplits(Vocabulary.of(tokenizer))
            >>> again = splits.resplit(tokenizer("the other")["input_ids"], share=1.0)
            >>> tokenizer.convert_ids_to_tokens(again), tokenizer.decode(again)
            (['th', 'e', 'Ġ', 'o', 'th', 'e', 'r'], 'the other')
        """
        result = list(tokens)
        # Draws alike in every version of Python.
        draw = random.Random(f"{seed} {number} {result}")  # noqa: S311
        for _ in range(max(1, int(share * len(tokens))) if result else 0):
            place, choice = int(draw.random() * len(result)), draw.random()
            pairs = self.pairs(result[place])
            if pairs:
                result[place : place + 1] = pairs[int(choice * len(pairs))]
        return result
