"""Random numbers of a search: functions of the seed of a prompt, the particle and the step, without a generator.

Two particles with one prefix draw different tokens, the rows of one prompt do not depend on the other prompts of the
batch, and a draw does not depend on how many draws came before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logitkit.processors.engine.prefix_random import PrefixRandom

_HASHED = PrefixRandom()
ENTRIES = 2**23  # probabilities in float64 that a draw holds at once


def uniform(seeds: Tensor, *parts: Tensor | int) -> Tensor:
    """Return one number in [0, 1) for each seed, float64, of the shape of ``seeds``.

    Args:
        seeds: int64, such as the seed of the prompt of each row, ``[rows]``.
        parts: what tells draws of one seed apart, such as the number of the particle and the step; numbers, or tensors
            of the shape of ``seeds``.

    Example:
        >>> seeds = torch.tensor([7, 7, 8])
        >>> numbers = uniform(seeds, torch.tensor([0, 1, 0]), 3)
        >>> len(set(numbers.tolist())), bool((numbers == uniform(seeds, torch.tensor([0, 1, 0]), 3)).all())
        (3, True)
    """
    columns = [torch.as_tensor(part, device=seeds.device).expand_as(seeds) for part in parts]
    return _HASHED(torch.stack([seeds, *columns], dim=-1).flatten(0, -2)).view(seeds.shape)


def draw(logp: Tensor, numbers: Tensor) -> Tensor:
    """Return one token for each row, drawn by inversion of the distribution function; never one of probability 0.

    Args:
        logp: log-probabilities or logits, ``[rows, vocab]``; at least one entry of a row is finite.
        numbers: in [0, 1), float64, ``[rows]``.

    Returns:
        Token ids, ``[rows]``.

    Example:
        >>> logp = torch.tensor([[0.25, 0.0, 0.75]]).log()
        >>> [int(draw(logp, torch.tensor([number]).double())) for number in (0.0, 0.2, 0.25, 0.99)]
        [0, 0, 2, 2]
    """
    rows = max(1, ENTRIES // logp.shape[-1])
    parts = zip(logp.split(rows), numbers.to(logp.device).split(rows), strict=True)
    return torch.cat([_drawn(part, each) for part, each in parts])


def _drawn(logp: Tensor, numbers: Tensor) -> Tensor:
    """Return one token for each row; see `draw`."""
    p = logp.double().softmax(-1)
    cumulative = p.cumsum(-1)
    total = cumulative[:, -1:]
    # A number just below 1 times the total may round to the total, beyond which no token lies.
    target = torch.minimum(numbers[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return ((cumulative > target) & (p > 0)).int().argmax(-1)
