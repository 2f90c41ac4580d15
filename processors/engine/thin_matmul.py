"""Products of a weight with very few rows, in the order that the machine's BLAS is fast at.

``x @ W.T`` and ``(W @ x.T).T`` are the same numbers up to rounding. For two to eight rows on a CPU some
libraries take several times longer for the first, which is what ``torch.nn.Linear`` asks for: then a
doubled batch would cost nearly two forwards. A fused forward asks for the second where that was measured
to be faster on the model's own weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

FEW = range(2, 9)  # rows; from about nine on, both orders take the same time
WORTH = 1.25  # how many times faster the turned product must be
PROBED = 2**18  # numbers in the weight that is timed, at least: smaller ones say nothing
_KNOWN: WeakKeyDictionary[Any, dict[int, bool]] = WeakKeyDictionary()  # timed once a model


class ThinMatmul(TorchFunctionMode):
    """While entered, fp32 products of two to eight rows on the CPU are computed as weight times rows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear and not kwargs and _few(args[0]):
            return turned(*args)
        return func(*args, **(kwargs or {}))


def turned(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``linear(rows, weight, bias)``, computed as weight times rows.

    Args:
        rows: ``[..., inputs]``.
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``.
    """
    product = torch.mm(weight, rows.reshape(-1, rows.shape[-1]).t()).t().contiguous()
    product = product if bias is None else product.add_(bias)
    return product.view(*rows.shape[:-1], weight.shape[0])


def pays(model: Any, rows: int) -> bool:
    """Whether a forward of so many rows of one token is faster with `ThinMatmul`; timed once on its own weights."""
    known = _KNOWN.setdefault(model, {})
    if rows not in known:
        known[rows] = rows in FEW and _faster(model, rows)
    return known[rows]


@torch.no_grad()
def _faster(model: Any, rows: int) -> bool:
    """Time both orders over some large weights and the head: one weight alone would sit in the processor's cache."""
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    weights = [layer.weight for layer in layers if layer.weight.numel() >= PROBED and _few(layer.weight[:rows])]
    some = [(weight.new_ones(rows, weight.shape[1]), weight) for weight in [*weights[:16], *weights[-1:]]]
    straight = _seconds(lambda: [linear(x, weight) for x, weight in some])
    return bool(some) and straight > WORTH * _seconds(lambda: [turned(x, weight) for x, weight in some])


def _seconds(run: Callable[[], list[Tensor]]) -> float:
    """The best of four."""
    took = []
    for _ in range(4):
        begun = time.perf_counter()
        run()
        took.append(time.perf_counter() - begun)
    return min(took)


def _few(rows: Tensor) -> bool:
    """Whether these are few rows, in fp32, on the CPU."""
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and rows.numel() // rows.shape[-1] in FEW
