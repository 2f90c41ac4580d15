"""Prompts of several streams, each distinct one read once, and joined to one cache.

A forward over all rows at once pads their prompts to one width, and reads the same prompt as often as it has rows.
Where that costs much more than the tokens of the prompts, the distinct prompts are read, in one forward or in one for
each stream, into caches of their own, from which the cache of all rows is filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer

# Kinds of cached layers that are filled by one `update` with the keys and values of all tokens.
PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer)
FORWARD = 64  # tokens that cost as much as a forward of its own, on a CPU
# On an accelerator launching the kernels of a forward takes as long as reading this many tokens: 40 ms for a model of
# 7B on an H200 (docs/performance.md).
FORWARD_ON_ACCELERATORS = 1024
LEAST_SHARE = 0.25  # of the cost that remains, which must be saved


@dataclass(frozen=True, eq=False)
class PromptPart:
    """The distinct prompts of one stream.

    Attributes:
        ids, mask: tokens and mask, ``[prompts, width]``, left-padded.
        source: the prompt of each row, ``[rows]``.
        cache: holds the prompts after the forward; all of its layers keep all tokens.

    >>> ids, mask = torch.tensor([[0, 5], [6, 7], [6, 7]]), torch.tensor([[0, 1], [1, 1], [1, 1]])
    >>> part = PromptPart.of(ids, mask, torch.tensor([0, 1, 1]))
    >>> part.ids.tolist(), part.source.tolist(), part.positions.tolist()
    ([[0, 5], [6, 7]], [0, 1, 1], [[0, 0], [0, 1]])
    """

    ids: Tensor
    mask: Tensor
    source: Tensor
    cache: DynamicCache = field(default_factory=DynamicCache)

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor, index: Tensor) -> PromptPart:
        """Return the part of rows ``[rows, width]`` that read the prompts with these numbers, ``[rows]``."""
        numbers, source = torch.unique(index, return_inverse=True)
        first = torch.stack([(index == number).int().argmax() for number in numbers])  # a row of each prompt
        width = int(mask.sum(-1).amax())
        return cls(ids[first, -width:], mask[first, -width:], source)

    @property
    def positions(self) -> Tensor:
        """Position of each token, ``[prompts, width]``."""
        return (self.mask.cumsum(-1) - 1).clamp_min(0)


def with_tokens(ids: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens and mask of prompts, ``[rows, width]`` each, with tokens ``[rows, more]`` behind them.

    >>> with_tokens(torch.tensor([[0, 5]]), torch.tensor([[0, 1]]), torch.tensor([[7]]))
    (tensor([[0, 5, 7]]), tensor([[0, 1, 1]]))
    """
    return torch.cat([ids, tokens], dim=1), torch.cat([mask, torch.ones_like(tokens)], dim=1)


def merged(parts: Sequence[PromptPart]) -> PromptPart:
    """Return one part with the prompts of all parts, left-padded to one width; its rows are theirs, one after another.

    >>> ids = torch.tensor([[5, 6]])
    >>> one = PromptPart(ids, torch.ones(1, 2).long(), torch.tensor([0, 0]))
    >>> short = PromptPart(ids[:, :1], torch.ones(1, 1).long(), torch.tensor([0, 0]))
    >>> both = merged([one, short])
    >>> both.ids.tolist(), both.mask.tolist(), both.source.tolist()
    ([[5, 6], [0, 5]], [[1, 1], [0, 1]], [0, 0, 1, 1])
    """
    width = max(part.ids.shape[1] for part in parts)
    before = [sum(len(part.ids) for part in parts[:number]) for number in range(len(parts))]
    return PromptPart(
        torch.cat([pad(part.ids, (width - part.ids.shape[1], 0)) for part in parts]),
        torch.cat([pad(part.mask, (width - part.mask.shape[1], 0)) for part in parts]),
        torch.cat([part.source + offset for part, offset in zip(parts, before, strict=True)]),
    )


def cheapest(parts: Sequence[PromptPart], tokens: int) -> Sequence[PromptPart]:
    """Return the parts to read apart, a forward each; none where one forward over all rows costs no more.

    Args:
        parts: the distinct prompts of each stream.
        tokens: tokens of one forward over all rows.

    >>> long = PromptPart.of(torch.ones(1, 900).long(), torch.ones(1, 900).long(), torch.tensor([0]))
    >>> short = PromptPart.of(torch.ones(1, 1).long(), torch.ones(1, 1).long(), torch.tensor([0]))
    >>> len(cheapest([long, short], 1800)), len(cheapest([long, long], 1800)), len(cheapest([long, long], 9000))
    (2, 0, 1)
    """
    forward = FORWARD if parts[0].ids.device.type == "cpu" else FORWARD_ON_ACCELERATORS
    together = merged(parts)
    costs = [sum(forward + part.ids.numel() for part in group) for group in ([together], parts)]
    least = min(costs)
    if forward + tokens - least <= LEAST_SHARE * least:
        return ()
    return [together] if costs[0] == least else parts


def can_join(cache: Any) -> bool:
    """Return whether `join` can fill a cache.

    >>> from transformers import GPT2Config, StaticCache
    >>> can_join(StaticCache(GPT2Config(n_layer=2), 8)), can_join(None)
    (True, False)
    """
    layers = getattr(cache, "layers", ())
    return bool(layers) and not cache.offloading and all(type(layer) in PLAIN_LAYERS for layer in layers)


def join(cache: Any, parts: Sequence[PromptPart], width: int) -> None:
    """Fill an empty cache with the rows of all parts, one part below the other, left-padded to a width.

    Each layer of a part is dropped as soon as it is copied, so that no more than the joined cache remains.

    Args:
        cache: a cache of transformers for which `can_join` holds.
        parts: parts whose caches hold their prompts.
        width: tokens of the padded prompts.
    """
    for number in range(len(cache.layers)):
        layers: list[Any] = [part.cache.layers[number] for part in parts]
        keys, values = (
            torch.cat(
                [
                    pad(getattr(layer, name), (0, 0, width - part.ids.shape[1], 0))[part.source]
                    for layer, part in zip(layers, parts, strict=True)
                ]
            )
            for name in ("keys", "values")
        )
        for layer in layers:
            layer.keys = layer.values = None
        cache.update(keys, values, number)
