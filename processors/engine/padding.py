"""Left padding of rows, for processors that read the tokens so far."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from logitkit.params import Resource
from logitkit.processors.engine.prompts import Prompts

BoundPrompts = Annotated[Prompts | None, Resource()]


def without_padding(prompts: Prompts | None, input_ids: Tensor, vocab: int) -> Tensor:
    """Replace left padding by an id outside the vocabulary, which the processors of transformers ignore.

    Args:
        prompts: the prompts of the call; None: no token is padding.
        input_ids: ``[rows, length]``.
        vocab: width of the scores; the id that replaces padding.

    Returns:
        ``[rows, length]``; ``input_ids`` itself when no prompt is padded.

    Example:
        >>> import torch
        >>> prompts = Prompts(ids=torch.tensor([[0, 5], [6, 7]]), mask=torch.tensor([[0, 1], [1, 1]]),
        ...                   texts=("", ""), messages=(None, None), adds_specials=False)
        >>> without_padding(prompts, torch.tensor([[0, 5, 9], [6, 7, 9]]), vocab=10)
        tensor([[10,  5,  9],
                [ 6,  7,  9]])
    """
    if prompts is None or prompts.in_encoder or not prompts.padded:
        return input_ids
    real = prompts.mask.to(input_ids.device)[prompts.rows(input_ids)].bool()  # [rows, width]
    masked = input_ids.clone()
    masked[:, : prompts.width] = masked[:, : prompts.width].masked_fill(~real, vocab)
    return masked
