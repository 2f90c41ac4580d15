"""A device that does not exist: it computes on the CPU and counts the reads at which a host would wait for it.

Tensors on the pretended device report the device ``meta`` and hold a tensor of the CPU. Everything that a real
accelerator would make the host wait for is counted: numbers, lists and arrays read from a tensor, copies to and from
the host, and operations whose result has a shape that depends on values. `bench.speed.syncs` counts on real devices
too, but on the CPU it cannot tell a copy from the host from a tensor that is there already.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("meta")
WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
INDEXING = {"index", "index_put", "index_put_"}
NO_KERNEL = {"_local_scalar_dense", "empty", "new_empty", "empty_like", "empty_strided", "detach", "lift_fresh"}


class OnDevice(Tensor):
    """A tensor on the pretended device; ``inner`` is the tensor of the CPU that holds its values."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: Any, inner: Tensor) -> Any:
        tensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip
        tensor.inner = inner
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside `pretended`")


class Pretended:
    """A context manager in which the device exists.

    Attributes:
        waits: number of waits by operation, without those inside the forward of a model that `model_on_device` made.
        launches: number of operations that launch a kernel, by operation, likewise.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self._modes = (_Functions(self), _Operations(self))

    def __enter__(self) -> Pretended:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)  # type: ignore[no-untyped-call]


class _Functions(TorchFunctionMode):
    """Functions that build a tensor from Python numbers, or read one, without an operation that can be counted."""

    def __init__(self, device: Pretended) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_device(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if getattr(func, "__name__", "") == "tolist" and isinstance(args[0], OnDevice):
            self.device.waits["tolist"] += 1
            return args[0].inner.tolist()
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    """Runs the operations of the device on the CPU, and counts them."""

    def __init__(self, device: Pretended) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat, structure = tree_flatten((args, kwargs or {}))
        target = (kwargs or {}).get("device")
        reads = any(isinstance(value, OnDevice) for value in flat)
        inner = [value.inner if isinstance(value, OnDevice) else value for value in flat]
        inner = [torch.device("cpu") if isinstance(value, torch.device) else value for value in inner]
        own_args, own_kwargs = tree_unflatten(inner, structure)
        result = func(*own_args, **own_kwargs)
        wait = self._wait(func, args, kwargs or {}, reads, target)
        if wait:
            self.device.waits[wait] += 1
        if not (_is_device(target) if target is not None else reads) or wait == "copy to the host":
            return result
        if func.overloadpacket.__name__ not in NO_KERNEL and not _is_view(func):
            self.device.launches[func.overloadpacket.__name__] += 1
        known = {id(own): value for own, value in zip(inner, flat, strict=True) if isinstance(own, Tensor)}
        return tree_map(lambda x: known.get(id(x), OnDevice(x)) if isinstance(x, Tensor) else x, result)

    def _wait(self, func: Any, args: Any, kwargs: Any, reads: bool, target: Any) -> str:
        """Return what the host waits for; empty: nothing."""
        name = func.overloadpacket.__name__
        if name == "_to_copy" and target is not None and reads != _is_device(target):
            return "copy to the host" if reads else "copy to the device"
        if name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            return "copy_"
        if not reads:
            return ""
        by_mask = name in INDEXING and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        repeats = name == "repeat_interleave" and kwargs.get("output_size") is None
        return name if name in WAITS or by_mask or repeats else ""


def model_on_device(model: Any, device: Pretended) -> Any:
    """Return a copy of a model whose weights are on the pretended device; its forwards are not counted."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(OnDevice(weight.data), requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else OnDevice(buffer)
    forward = model.forward

    @functools.wraps(forward)
    def uncounted(*args: Any, **kwargs: Any) -> Any:
        waits, launches = device.waits.copy(), device.launches.copy()
        try:
            return forward(*args, **kwargs)
        finally:
            for counter, before in ((device.waits, waits), (device.launches, launches)):
                counter.clear()
                counter.update(before)

    model.forward = uncounted
    return model


def _is_device(target: Any) -> bool:
    """Return whether a device is the pretended one."""
    return target is not None and torch.device(target) == DEVICE


def _is_view(func: Any) -> bool:
    """Return whether an operation returns a view, which launches no kernel."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
