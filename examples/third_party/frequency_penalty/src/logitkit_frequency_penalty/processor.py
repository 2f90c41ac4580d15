"""The frequency penalty of OpenAI's API, over new tokens alone. No departures."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number
from logitkit.processors.engine.binding import Binding


def penalised(scores: Tensor, written: Tensor, *, penalty: float) -> Tensor:
    """Return ``scores - penalty * count``.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        written: the new tokens so far, ``[rows, length]``.
        penalty: nats for each time; below 0 repetition is rewarded.
    """
    losses = torch.full(written.shape, -penalty, dtype=scores.dtype, device=scores.device)
    return scores.scatter_add(1, written, losses)


class FrequencyPenalty(LogitsProcessor):
    """`penalised` as a processor.

    Args:
        start: how many leading tokens of a row are prompt, padding included.
    """

    @checked
    def __init__(
        self,
        *,
        penalty: Annotated[float, number("nats for each time a token was written", ge=-2, le=2, neutral=0)] = 0.5,
        start: Annotated[int, Resource()],
    ) -> None:
        self.penalty, self.start = penalty, start

    @classmethod
    def bind(cls, binding: Binding, *, penalty: float = 0.5) -> FrequencyPenalty:
        """Learn where the prompts end; behind an encoder, rows begin with one token that nobody wrote."""
        return cls(penalty=penalty, start=binding.prompts.width or 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores, ``[rows, vocab]``."""
        if is_neutral(self.penalty, 0):
            return scores
        return penalised(scores, input_ids[:, self.start :], penalty=self.penalty)
