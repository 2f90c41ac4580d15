"""Padding of rows, hidden from processors that read the text so far."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from logitkit.params import Resource
from logitkit.processors.engine.prompts import Prompts

BoundPrompts = Annotated[Prompts | None, Resource()]


def without_padding(prompts: Prompts | None, input_ids: Tensor, vocab: int) -> Tensor:
    """Replace left padding by an id outside the vocabulary, which transformers' processors pass over.

    Args:
        prompts: the bound prompts; None: nothing is padding.
        input_ids: ``[rows, length]``.
        vocab: width of the scores.
    """
    if prompts is None or prompts.in_encoder or not prompts.padded:
        return input_ids
    real = prompts.mask.to(input_ids.device)[prompts.rows(input_ids)].bool()  # [rows, width]
    masked = input_ids.clone()
    masked[:, : prompts.width] = masked[:, : prompts.width].masked_fill(~real, vocab)
    return masked
