"""Products of a weight with very few rows, in the order of operands that the BLAS library computes faster.

``x @ W.T`` and ``(W @ x.T).T`` are the same numbers up to rounding. For two to eight rows on a CPU, some libraries take
several times longer for the first order, which ``torch.nn.Linear`` uses. A doubled batch then costs nearly two
forwards. Fused forwards and the chunks of readers use the second order where a measurement on the model's own weights
found it faster.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import linear

from logitkit.processors.engine.model_forward import is_compiled

FEW_ROWS = range(2, 9)  # from about nine rows on, both orders take the same time
MIN_SPEEDUP = 1.25  # how many times faster the second order must be
MIN_TIMED_NUMBERS = 2**18  # smallest weight that is timed; timings of smaller weights are noise
_FASTER: WeakKeyDictionary[Any, dict[int, bool]] = WeakKeyDictionary()  # by model and rows


class ThinLinear(torch.nn.Linear):
    """A linear layer whose products of few rows are computed as weight times rows."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what the layer returns."""
        return weight_times_rows(input, self.weight, self.bias) if _is_thin(input) else super().forward(input)


class _Twin:
    """What a part with linear layers keeps during a forward, its model keeps too; `thin_twin` makes such parts."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        module = vars(self)["_twin_of"]
        setattr(module, name, value)
        if name in vars(module):
            vars(self)[name] = value


@functools.cache
def _twin_class(kind: type) -> type:
    """Return the class of the twins of a class of modules."""
    return type(kind.__name__, (_Twin, kind), {"__module__": kind.__module__})


def thin_twin(module: Any, known: dict[int, Any] | None = None) -> Any:
    """Return a module that computes the same with `ThinLinear` layers; the module itself is not changed.

    Weights, buffers and hooks are shared, and so is every part without a linear layer. A twin of a model of 400 parts
    takes half a millisecond. A function mode of torch around a forward computes the same, but Python then passes every
    function of the forward, which took 9 ms of a step of 72 ms.

    Args:
        module: a module; a layer of a class derived from ``torch.nn.Linear`` stays as it is.
        known: twins by the ``id`` of their modules, since a module may stand at several places.

    >>> layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> twin = thin_twin(layers)
    >>> twin[0].weight is layers[0].weight, type(twin[0]).__name__, type(layers[0]).__name__, twin[1] is layers[1]
    (True, 'ThinLinear', 'Linear', True)
    """
    known = {} if known is None else known
    if id(module) in known:
        return known[id(module)]
    twin = module
    if type(module) is torch.nn.Linear:
        twin = object.__new__(ThinLinear)
        object.__setattr__(twin, "__dict__", vars(module))
    else:
        parts = {name: part if part is None else thin_twin(part, known) for name, part in module._modules.items()}
        if any(part is not module._modules[name] for name, part in parts.items()):
            kind: Any = type(module)
            twin = object.__new__(_twin_class(kind))
            object.__setattr__(twin, "__dict__", vars(module) | {"_modules": parts, "_twin_of": module})
    known[id(module)] = twin
    return twin


def weight_times_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``linear(rows, weight, bias)``, computed as weight times rows.

    Args:
        rows: ``[..., inputs]``.
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``.

    Returns:
        ``[..., outputs]``, contiguous.

    Example:
        >>> import torch
        >>> weight_times_rows(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[11.]])
    """
    product = torch.mm(weight, rows.reshape(-1, rows.shape[-1]).t()).t().contiguous()
    product = product if bias is None else product.add_(bias)
    return product.view(*rows.shape[:-1], weight.shape[0])


def is_faster(model: Any, rows: int) -> bool:
    """Return whether a forward of ``rows`` rows of one token is faster in the other order; timed once a model."""
    if is_compiled(model):  # the compiler chooses its own order, and a twin would be compiled again
        return False
    known = _FASTER.setdefault(model, {})
    if rows not in known:
        known[rows] = rows in FEW_ROWS and _measured_faster(model, rows)
    return known[rows]


def in_faster_order(model: Any, tokens: int) -> Any:
    """Return what computes a forward of so many tokens, over all rows, in the faster order: the model, or a twin.

    A twin is of the model as it is now, so it is made for each forward.

    Args:
        model: the model of the forward; one that is no module of torch keeps its order.
        tokens: tokens of the forward.

    >>> from logitkit.registry.laws import tiny_model
    >>> in_faster_order(tiny_model(), 300) is tiny_model()
    True
    """
    thin = tokens in FEW_ROWS and isinstance(model, torch.nn.Module) and is_faster(model, tokens)
    return thin_twin(model) if thin else model


@torch.no_grad()
def _measured_faster(model: Any, rows: int) -> bool:
    """Time both orders over several large weights and the head; a single weight would stay in the CPU's cache."""
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    weights = [
        layer.weight for layer in layers if layer.weight.numel() >= MIN_TIMED_NUMBERS and _is_thin(layer.weight[:rows])
    ]
    products = [(weight.new_ones(rows, weight.shape[1]), weight) for weight in [*weights[:16], *weights[-1:]]]
    usual = _seconds(lambda: [linear(x, weight) for x, weight in products])
    swapped = _seconds(lambda: [weight_times_rows(x, weight) for x, weight in products])
    return bool(products) and usual > MIN_SPEEDUP * swapped


def _seconds(run: Callable[[], list[Tensor]]) -> float:
    """Return the shortest of four timings."""
    timings = []
    for _ in range(4):
        start = time.perf_counter()
        run()
        timings.append(time.perf_counter() - start)
    return min(timings)


def _is_thin(rows: Tensor) -> bool:
    """Return whether a tensor holds two to eight fp32 rows on the CPU."""
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and rows.numel() // rows.shape[-1] in FEW_ROWS
