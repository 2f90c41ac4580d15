"""Pseudo-random numbers that depend on the tokens of a row and a seed alone.

A processor keeps no random generator: beam search and assisted decoding call a processor twice for one prefix, and both
calls must give the same number. The number is a hash of the row's tokens and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from logitkit.params import Resource
from logitkit.processors.engine.prompts import Prompts

UniformSource = Annotated[Callable[[Tensor], Tensor] | None, Resource()]

# Multipliers and shifts of the splitmix64 finaliser, as signed 64-bit numbers; products wrap around.
_FIRST, _SECOND, _STEP = (value - 2**64 for value in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15))


class PrefixRandom:
    """Uniform numbers in [0, 1) for rows of tokens. Equal rows get equal numbers, different rows independent ones.

    Args:
        seed: a different seed gives independent numbers; 64 bits, with sign. A sequence holds one seed for each row.
        prompts: the prompts of the call, whose padding is left out of the hash; None: every token is hashed.

    Example:
        >>> import torch
        >>> draw = PrefixRandom(seed=1)
        >>> rows = torch.tensor([[5, 6], [5, 7], [5, 6]])
        >>> numbers = draw(rows)
        >>> bool(numbers[0] == numbers[2]), bool(numbers[0] == numbers[1])
        (True, False)
        >>> bool(PrefixRandom(seed=[1, 2, 3])(rows)[0] == numbers[0])
        True
    """

    def __init__(self, *, seed: int | Sequence[int] = 0, prompts: Prompts | None = None) -> None:
        self.seed, self.prompts = seed, prompts

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return one number in [0, 1) for each row, float64, ``[rows]``.

        Args:
            input_ids: ``[rows, length]``.
        """
        return _shifted(self._bits(input_ids), 11).double() * 2.0**-53

    def of_tokens(self, input_ids: Tensor, size: int, wanted: Tensor | None = None) -> Tensor:
        """Return a number in (0, 1) for each wanted row and each token that may follow, float64, ``[wanted, size]``.

        Args:
            input_ids: ``[rows, length]``.
            size: number of tokens.
            wanted: numbers of rows, ``[wanted]``; None: all rows.
        """
        tokens = _mix(torch.arange(1, size + 1, device=input_ids.device))  # [size]
        bits = self._bits(input_ids)
        bits = bits if wanted is None else bits[wanted]
        return (_shifted(_mix(bits[:, None] ^ tokens), 12).double() + 0.5) * 2.0**-52

    def _bits(self, input_ids: Tensor) -> Tensor:
        """Return 64 random bits for each row, ``[rows]``."""
        input_ids = input_ids.long()  # the mixing is of 64 bits
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        counts = torch.ones_like(input_ids)
        if self.prompts is not None and self.prompts.width and self.prompts.padded:
            mask = self.prompts.mask.to(input_ids.device)[self.prompts.rows(input_ids)]  # [rows, width]
            counts = counts.clone()
            counts[:, : mask.shape[1]] = mask
            places = places - (mask == 0).sum(-1, keepdim=True)
        mixed = _hashed(input_ids, places) * counts
        return _mix(mixed.sum(-1) + _mix(torch.tensor(self.seed, device=input_ids.device) * _STEP + 1))


def prefix_hashes(input_ids: Tensor) -> Tensor:
    """Return a 64-bit hash of each prefix of each row, int64, ``[rows, length]``.

    Equal prefixes have equal hashes; different ones have different hashes, but for one chance in 2**64.

    Args:
        input_ids: ``[rows, length]``.

    Example:
        >>> one, other = prefix_hashes(torch.tensor([[5, 6, 7], [5, 6, 8]]))
        >>> (one == other).tolist()
        [True, True, False]
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return _hashed(input_ids.long(), places).cumsum(-1)


def _hashed(tokens: Tensor, places: Tensor) -> Tensor:
    """Return a hash of each token at its place."""
    return _mix(_mix(tokens + 1) + places * _STEP)


def _mix(bits: Tensor) -> Tensor:
    """Mix 64-bit integers: each output bit depends on every input bit (finaliser of splitmix64)."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right without the sign, which the shift of torch keeps."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
