"""Slow and obvious: read every prefix of every row from scratch, alone, without cache or padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.processors.contrast import formulas as contrast


class Recompute:
    """Next-token logits of (own prompt, continuation), computed anew for each row.

    Args:
        model: the reading model.
        own: its own prompts, as token ids.
        prompts: the generating model's prompts as it sees them, ``[prompts, width]``.
    """

    def __init__(self, model: Any, own: list[list[int]], prompts: Tensor, *, in_encoder: bool = False) -> None:
        self.model, self.own, self.prompts, self.in_encoder = model, own, prompts, in_encoder

    @torch.no_grad()
    def __call__(self, input_ids: Tensor) -> Tensor:
        return torch.cat([self.one(row, number, len(input_ids)) for number, row in enumerate(input_ids)])

    def one(self, row: Tensor, number: int, rows: int) -> Tensor:
        """Logits of one row, ``[1, vocab]``."""
        if self.in_encoder:
            prompt = number // (rows // len(self.own))
            own = torch.tensor([self.own[prompt]])
            return self.model(input_ids=own, decoder_input_ids=row[None], use_cache=False).logits[:, -1].float()
        width = self.prompts.shape[1]
        prompt = next(i for i, head in enumerate(self.prompts) if torch.equal(head, row[:width]))
        ids = torch.cat([torch.tensor(self.own[prompt]), row[width:]])[None]
        return self.model(input_ids=ids, use_cache=False).logits[:, -1].float()


class Guided(LogitsProcessor):
    """Guidance over any second stream; compares it with another one at every call.

    Attributes:
        worst: the largest difference in logits seen between the two streams.
        lengths: the lengths of the rows it was asked about, in order.
    """

    def __init__(self, second: Any, other: Any = None, scale: float = 2.0) -> None:
        self.second, self.other, self.scale = second, other, scale
        self.worst, self.lengths = 0.0, []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.lengths.append(input_ids.shape[1])
        logits = self.second(input_ids)
        if self.other is not None:
            self.worst = max(self.worst, float((logits - self.other(input_ids)).abs().max()))
        return contrast.cfg(scores, logits, scale=self.scale)
