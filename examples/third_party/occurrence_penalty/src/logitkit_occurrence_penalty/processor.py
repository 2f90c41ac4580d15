"""The frequency penalty of the OpenAI API, over new tokens only. Departures from the source: none."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number
from logitkit.processors.engine import Binding


def penalised(scores: Tensor, new_tokens: Tensor, *, penalty: float) -> Tensor:
    """Return ``scores - penalty * count``.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        new_tokens: ids of the tokens generated so far, ``[rows, length]``.
        penalty: nats per occurrence; a negative value rewards repetition.
    """
    losses = torch.full(new_tokens.shape, -penalty, dtype=scores.dtype, device=scores.device)
    return scores.scatter_add(1, new_tokens, losses)


class OccurrencePenalty(LogitsProcessor):
    """`penalised` as a processor.

    Args:
        start: number of leading tokens of a row that belong to the prompt, including padding.
    """

    @checked
    def __init__(
        self,
        *,
        penalty: Annotated[float, number("nats per occurrence of a token", ge=-2, le=2, neutral=0)] = 0.5,
        start: Annotated[int, Resource()],
    ) -> None:
        self.penalty, self.start = penalty, start

    @classmethod
    def bind(cls, binding: Binding, *, penalty: float) -> OccurrencePenalty:
        """Return the processor for the prompts of a call."""
        # The rows of an encoder-decoder start with one token that the model did not generate.
        return cls(penalty=penalty, start=binding.prompts.width or 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores, ``[rows, vocab]``."""
        if is_neutral(self.penalty, 0):
            return scores
        return penalised(scores, input_ids[:, self.start :], penalty=self.penalty)
