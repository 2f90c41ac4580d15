"""The width of rows of scores."""

from __future__ import annotations

import torch
from torch import Tensor


def fit(logits: Tensor, width: int) -> Tensor:
    """Bring logits of a second stream to the width of the scores.

    Models that share a tokenizer may pad their vocabularies to different widths; padded ids have no token.

    Args:
        logits: ``[rows, own width]``.
        width: width of the scores.

    Returns:
        ``[rows, width]``: missing ids are -inf, ids beyond ``width`` are cut off.

    Example:
        >>> import torch
        >>> fit(torch.tensor([[1.0, 2.0]]), 3), fit(torch.tensor([[1.0, 2.0]]), 1)
        (tensor([[1., 2., -inf]]), tensor([[1.]]))
    """
    missing = width - logits.shape[-1]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing > 0 else logits[:, :width]
