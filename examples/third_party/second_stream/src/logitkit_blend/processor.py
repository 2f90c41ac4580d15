"""A mixture of the generating model and a second stream (linear interpolation). No departures."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import checked, is_neutral, number, option
from logitkit.processors.engine import Binding, StreamLike, as_stream, fit, log_probabilities


def mixture(first: Tensor, second: Tensor, *, weight: float) -> Tensor:
    """Return ``log((1 - weight) p + weight q)``.

    Args:
        first: logits of p, ``[rows, vocab]``; a token at -inf stays at -inf.
        second: logits of q, ``[rows, vocab]``.
        weight: share of q, between 0 and 1, both excluded.
    """
    p = log_probabilities(first)  # fp32; a mask of finfo.min counts as -inf
    q = log_probabilities(second.masked_fill(p == -torch.inf, -torch.inf))
    return torch.logaddexp(p + math.log(1 - weight), q + math.log(weight)).to(first.dtype)


class Blend(LogitsProcessor):
    """`mixture` as a processor."""

    @checked
    def __init__(
        self, *, second: StreamLike, weight: Annotated[float, number("share of q", ge=0, lt=1, neutral=0)] = 0.3
    ) -> None:
        self.second, self.weight = as_stream(second), weight
        self.streams = () if is_neutral(weight, 0) else (self.second,)  # call.generate may fuse these

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        model: Annotated[str | None, option("a model with the same tokenizer; None: the generating model")] = None,
        before: Annotated[str, option("text in front of the prompt of the second stream")] = "",
        weight: float,
    ) -> Blend:
        """Ask for the reader of the second stream."""
        own = [binding.prompts.encode(binding.tokenizer, before + text) for text in binding.prompts.texts]
        other = None if model is None else binding.model_with_same_vocabulary(model, "blend")
        return cls(second=binding.reader(own, other, label=model or "second prompt"), weight=weight)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the mixture, ``[rows, vocab]``."""
        if is_neutral(self.weight, 0):
            return scores
        return mixture(scores, fit(self.second(input_ids), scores.shape[-1]), weight=self.weight)
