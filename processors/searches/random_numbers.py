"""Random numbers of a search: functions of the seed of a prompt, the particle and the step, without a generator.

Two particles with one prefix draw different tokens, the rows of one prompt do not depend on the other prompts of the
batch, and a draw does not depend on how many draws came before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logitkit.processors.engine.prefix_random import PrefixRandom

_HASHED = PrefixRandom()
BLOCK = 256  # tokens whose probabilities are added up before they are cumulated


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

    The function is inverted in two steps: over blocks of tokens, then over the tokens of one block.

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
    p = (logp - logp.amax(-1, keepdim=True)).to(torch.promote_types(logp.dtype, torch.float32)).exp()
    blocks = torch.nn.functional.pad(p, (0, -p.shape[-1] % BLOCK)).view(len(p), -1, BLOCK)
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted = _below(numbers.to(sums.device)[:, None] * sums[:, -1:], sums)
    block = (sums > wanted).int().argmax(-1, keepdim=True)  # [rows, 1]
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp_min(0)), 0.0)
    chosen = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0].double()
    cumulative = chosen.cumsum(-1)
    inside = _below(wanted - before, cumulative)
    return (block * BLOCK + ((cumulative > inside) & (chosen > 0)).int().argmax(-1, keepdim=True))[:, 0]


def _below(values: Tensor, cumulative: Tensor) -> Tensor:
    """Return values, ``[rows, 1]``, below the last cumulated sum, which rounding may reach and no token lies beyond."""
    total = cumulative[:, -1:]
    return torch.minimum(values, torch.nextafter(total, torch.zeros_like(total)))
