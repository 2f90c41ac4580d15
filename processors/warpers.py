"""transformers' processors that read the text so far, told what is padding.

`generate` derives padding from the attention mask when it builds these itself; a processor in a list
is not told. The formulas are transformers' own.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from transformers import LogitsProcessor
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from logitkit.errors import ModelError
from logitkit.params import Resource, checked, is_neutral, number, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.padding import BoundPrompts, without_padding
from logitkit.processors.model_facts import end_tokens


class RepetitionPenalty(LogitsProcessor):
    """Repetition penalty (arXiv:1909.05858) over transformers' own, blind to padding."""

    @checked
    def __init__(
        self,
        *,
        penalty: Annotated[float, number("divide seen tokens' scores by this", gt=0, neutral=1)],
        prompts: BoundPrompts = None,
    ) -> None:
        self.penalty, self.prompts = penalty, prompts
        self._inner = RepetitionPenaltyLogitsProcessor(float(penalty))

    @classmethod
    def bind(cls, binding: Binding, **strength: float) -> RepetitionPenalty:
        """Learn where the padding is."""
        return cls(prompts=binding.prompts, **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return penalised scores, ``[rows, vocab]``."""
        if is_neutral(self.penalty, 1):
            return scores
        done: Tensor = self._inner(without_padding(self.prompts, input_ids, scores.shape[-1]), scores)
        return done


class NoRepeatNgram(LogitsProcessor):
    """No repeated n-gram, over transformers' own, blind to padding."""

    @checked
    def __init__(
        self, *, size: Annotated[int, whole("n: never repeat n tokens in a row", ge=1)], prompts: BoundPrompts = None
    ) -> None:
        self.size, self.prompts = size, prompts
        self._inner = NoRepeatNGramLogitsProcessor(size)

    @classmethod
    def bind(cls, binding: Binding, **strength: int) -> NoRepeatNgram:
        """Learn where the padding is."""
        return cls(prompts=binding.prompts, **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with completed repeats at -inf, ``[rows, vocab]``."""
        done: Tensor = self._inner(without_padding(self.prompts, input_ids, scores.shape[-1]), scores)
        return done


class MinNewTokens(LogitsProcessor):
    """No end token before so many new ones, over transformers' own."""

    @checked
    def __init__(
        self,
        *,
        count: Annotated[int, whole("how many new tokens at least", ge=0, neutral=0)],
        width: Annotated[int, Resource()] = 0,
        ends: Annotated[list[int], Resource()],
    ) -> None:
        self.count, self._width = count, width
        self._inner = MinNewTokensLengthLogitsProcessor(width, count, ends)

    @classmethod
    def bind(cls, binding: Binding, **strength: int) -> MinNewTokens:
        """Learn the prompts' length and the end tokens."""
        # The tokenizer's end token counts only where the model names none: else `generate` does not stop at it.
        ends = end_tokens(binding.model) or end_tokens(binding.model, binding.tokenizer)
        if not ends:
            raise ModelError(
                "min_new_tokens: the model must have an end token; set model.generation_config.eos_token_id"
            )
        width = 1 if binding.prompts.in_encoder else binding.prompts.width
        return cls(width=width, ends=list(ends), **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with end tokens at -inf while the text is too short, ``[rows, vocab]``."""
        if input_ids.shape[1] - self._width >= self.count:
            return scores
        self._inner.eos_token_id = self._inner.eos_token_id.to(scores.device)
        done: Tensor = self._inner(input_ids, scores)
        return done
