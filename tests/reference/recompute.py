"""Reference streams: every prefix of every row is computed on its own, without cache and without padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.processors.contrast import cfg


class Recompute:
    """Stream of a model with prompts of its own; each call computes every row from its first token.

    Args:
        model: the model that computes the logits.
        own: the prompts of this stream, as token ids.
        prompts: the prompts of the generating model with their padding, ``[prompts, width]``.
        in_encoder: whether the prompts are input of an encoder.
    """

    def __init__(self, model: Any, own: list[list[int]], prompts: Tensor, *, in_encoder: bool = False) -> None:
        self.model, self.own, self.prompts, self.in_encoder = model, own, prompts, in_encoder

    @torch.no_grad()
    def __call__(self, input_ids: Tensor) -> Tensor:
        return torch.cat([self.row_logits(row, number, len(input_ids)) for number, row in enumerate(input_ids)])

    def row_logits(self, row: Tensor, number: int, rows: int) -> Tensor:
        """Return the next-token logits of one row, ``[1, vocab]``.

        Args:
            row: tokens, ``[length]``.
            number: index of the row in the batch.
            rows: number of rows in the batch.
        """
        if self.in_encoder:
            prompt = number // (rows // len(self.own))
            own = torch.tensor([self.own[prompt]])
            return self.model(input_ids=own, decoder_input_ids=row[None], use_cache=False).logits[:, -1].float()
        width = self.prompts.shape[1]
        prompt = next(i for i, own in enumerate(self.prompts) if torch.equal(own, row[:width]))
        ids = torch.cat([torch.tensor(self.own[prompt]), row[width:]])[None]
        return self.model(input_ids=ids, use_cache=False).logits[:, -1].float()


class Guided(LogitsProcessor):
    """Classifier-free guidance that compares its second stream with a reference stream at every call.

    Attributes:
        worst: the largest difference in logits between the two streams so far.
        lengths: the row length of each call, in order.
    """

    def __init__(self, second: Any, other: Any = None, scale: float = 2.0) -> None:
        self.second, self.other, self.scale = second, other, scale
        self.worst, self.lengths = 0.0, []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.lengths.append(input_ids.shape[1])
        logits = self.second(input_ids)
        if self.other is not None:
            self.worst = max(self.worst, float((logits - self.other(input_ids)).abs().max()))
        return cfg(scores, logits, scale=self.scale)
