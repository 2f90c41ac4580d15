"""Processors of transformers that depend on padding, end tokens or the vocabulary, which a list does not tell them.

`generate` passes the padding to the repetition penalty when it builds the penalty itself; its n-gram processor reads
padding as text. A processor in a list does not receive the mask, so these classes take the prompts of the call, and its
settings for end tokens. Token ids are compared with the vocabulary when a chain is bound.
The formulas are those of transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.generation.logits_process import (
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, is_neutral, number, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import BoundSettings
from logitkit.processors.engine.padding import BoundPrompts, without_padding
from logitkit.processors.model_facts import end_tokens, vocabulary_size

__all__ = [
    "BadWords",
    "MinNewTokens",
    "NoRepeatNgram",
    "RepetitionPenalty",
    "SuppressTokens",
]


class RepetitionPenalty(LogitsProcessor):
    """Divide positive scores of tokens in the row by a penalty, and multiply negative scores (arXiv:1909.05858).

    Tokens of the prompt count; padding does not.

    Args:
        penalty: above 0; above 1 discourages repetition, below 1 encourages it, 1 changes nothing.
        prompts: the prompts of the call; None: no token is padding.

    Example:
        >>> import torch
        >>> RepetitionPenalty(penalty=2.0)(torch.tensor([[0, 1]]), torch.tensor([[1.0, -1.0, 1.0]]))
        tensor([[ 0.5000, -2.0000,  1.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        penalty: Annotated[
            float, number("positive scores of tokens already in the row are divided by this value", gt=0, neutral=1)
        ],
        prompts: BoundPrompts = None,
    ) -> None:
        self.penalty, self.prompts = penalty, prompts
        self._inner = RepetitionPenaltyLogitsProcessor(float(penalty))

    @classmethod
    def bind(cls, binding: Binding, *, penalty: float) -> RepetitionPenalty:
        """Return the processor with the prompts of the call."""
        return cls(penalty=penalty, prompts=binding.prompts)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the penalised scores, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits, ``[rows, vocab]``.
        """
        if is_neutral(self.penalty, 1):
            return scores
        penalised: Tensor = self._inner(without_padding(self.prompts, input_ids, scores.shape[-1]), scores)
        return penalised


class NoRepeatNgram(LogitsProcessor):
    """Forbid tokens that would complete an n-gram that the row already holds. Padding is in no n-gram.

    Args:
        size: length n of the n-grams, at least 1.
        prompts: the prompts of the call; None: no token is padding.

    Example:
        >>> import torch
        >>> NoRepeatNgram(size=2)(torch.tensor([[0, 1, 0]]), torch.zeros(1, 3))  # 0 1 must not follow again
        tensor([[0., -inf, 0.]])
    """

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, whole("length n: no sequence of n tokens occurs twice", ge=1)],
        prompts: BoundPrompts = None,
    ) -> None:
        self.size, self.prompts = size, prompts
        self._inner = NoRepeatNGramLogitsProcessor(size)

    @classmethod
    def bind(cls, binding: Binding, *, size: int) -> NoRepeatNgram:
        """Return the processor with the prompts of the call."""
        return cls(size=size, prompts=binding.prompts)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with forbidden tokens at -inf, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        masked: Tensor = self._inner(without_padding(self.prompts, input_ids, scores.shape[-1]), scores)
        return masked


class MinNewTokens(LogitsProcessor):
    """Forbid the end tokens until a row has a minimum number of new tokens.

    Args:
        count: minimum number of new tokens; 0 changes nothing.
        width: number of tokens of a row before its first new token, padding included.
        ends: ids of the end tokens.
        settings: the settings of the call; what `generate` is told replaces ``width`` and ``ends``.

    Example:
        >>> import torch
        >>> processor = MinNewTokens(count=2, width=1, ends=[2])
        >>> processor(torch.tensor([[0, 1]]), torch.zeros(1, 3))  # one new token so far
        tensor([[0., 0., -inf]])
    """

    @checked
    def __init__(
        self,
        *,
        count: Annotated[int, whole("minimum number of new tokens", ge=0, neutral=0)],
        width: Annotated[int, Resource()] = 0,
        ends: Annotated[Sequence[int], Resource()],
        settings: BoundSettings = None,
    ) -> None:
        self.count, self._width, self._ends, self._settings = count, width, tuple(ends), settings

    @classmethod
    def bind(cls, binding: Binding, *, count: int) -> MinNewTokens:
        """Return the processor with the length of the prompts and the end tokens of the model.

        Raises:
            ModelError: neither the model nor the tokenizer has an end token.
        """
        # The tokenizer's end token counts only where the model has none: else `generate` does not stop at it.
        ends = end_tokens(binding.model) or end_tokens(binding.model, binding.tokenizer)
        if not ends:
            raise ModelError(
                "min_new_tokens: the model must have an end token; set model.generation_config.eos_token_id"
            )
        return cls(count=count, ends=ends, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, with end tokens at -inf where a row is too short, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        start, ends = self._width, self._ends
        if self._settings is not None:
            start, ends = self._settings.start, self._settings.text_ends(ends)
        if input_ids.shape[1] - start >= self.count:
            return scores
        masked = scores.clone()
        masked[:, [end for end in ends if end < scores.shape[-1]]] = -torch.inf
        return masked


class BadWords(LogitsProcessor):
    """Forbid sequences of tokens. An end token alone stays possible, as with ``bad_words_ids`` of `generate`.

    Args:
        bad_words_ids: forbidden sequences of token ids, none empty.
        settings: the settings of the call, which state the end tokens; None: there are none.

    Raises:
        ParameterError: no sequence, an empty sequence, or a negative id.

    Example:
        >>> import torch
        >>> BadWords(bad_words_ids=[[2], [0, 1]])(torch.tensor([[0]]), torch.zeros(1, 3))
        tensor([[0., -inf, -inf]])
    """

    def __init__(self, *, bad_words_ids: Sequence[Sequence[int]], settings: BoundSettings = None) -> None:
        if not bad_words_ids or not all(map(len, bad_words_ids)) or any(min(word) < 0 for word in bad_words_ids):
            rule = "one or more lists of token ids >= 0, none empty"
            raise ParameterError("bad_words", "bad_words_ids", rule, bad_words_ids)
        self.words, self._settings = tuple(tuple(word) for word in bad_words_ids), settings
        self._built: dict[tuple[tuple[int, ...], ...], LogitsProcessor] = {}

    @classmethod
    def bind(cls, binding: Binding, *, bad_words_ids: list[list[int]]) -> BadWords:
        """Return the processor with the end tokens of the call.

        Raises:
            ParameterError: an id outside the vocabulary of the model.
        """
        _check_ids(binding, "bad_words", "bad_words_ids", bad_words_ids)
        return cls(bad_words_ids=bad_words_ids, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with tokens that would complete a sequence at -inf, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        ends = () if self._settings is None else self._settings.end_tokens()
        words = tuple(
            word for word in self.words if max(word) < scores.shape[-1] and not (len(word) == 1 and word[0] in ends)
        )
        if not words:
            return scores
        if words not in self._built:
            self._built[words] = NoBadWordsLogitsProcessor([list(word) for word in words])
        forbidden: Tensor = self._built[words](input_ids, scores)
        return forbidden


class SuppressTokens(LogitsProcessor):
    """Forbid tokens.

    Args:
        suppress_tokens: ids of the forbidden tokens; an empty list changes nothing.

    Raises:
        ParameterError: a negative id.

    Example:
        >>> import torch
        >>> SuppressTokens(suppress_tokens=[1])(torch.tensor([[0]]), torch.zeros(1, 3))
        tensor([[0., -inf, 0.]])
    """

    def __init__(self, *, suppress_tokens: Sequence[int]) -> None:
        if any(token < 0 for token in suppress_tokens):
            raise ParameterError("suppress_tokens", "suppress_tokens", "token ids >= 0", suppress_tokens)
        self._inner = SuppressTokensLogitsProcessor(suppress_tokens)

    @classmethod
    def bind(cls, binding: Binding, *, suppress_tokens: list[int]) -> SuppressTokens:
        """Return the processor.

        Raises:
            ParameterError: an id outside the vocabulary of the model.
        """
        _check_ids(binding, "suppress_tokens", "suppress_tokens", [suppress_tokens])
        if not suppress_tokens:
            binding.no_effect["suppress_tokens"] = ("the list is empty", "list token ids, or leave suppress_tokens out")
        return cls(suppress_tokens=suppress_tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the tokens at -inf, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        suppressed: Tensor = self._inner(input_ids, scores)
        return suppressed


def _check_ids(binding: Binding, name: str, parameter: str, sequences: Sequence[Sequence[int]]) -> None:
    """Refuse token ids outside the vocabulary of the generating model; another engine's vocabulary is not known.

    Raises:
        ParameterError: an id that is not below the number of the model's logits.
    """
    size = vocabulary_size(binding.model) if binding.has_model else None
    beyond = sorted({token for ids in sequences for token in ids if size is not None and token >= size})
    if beyond:
        raise ParameterError(name, parameter, f"token ids below {size}, the size of the vocabulary", beyond)
