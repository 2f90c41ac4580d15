"""Count the reads at which the host waits for the device (synchronisations), on any device.

An accelerator queues the kernels of a step, and reading one number back waits for all of them. A CPU does not wait,
but the same reads occur, so they can be counted there.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result or shape the host must know before it can continue.
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive"}
INDEXING = {"index", "index_put", "index_put_"}  # indexing by a mask: the host must know how many entries are set
COPIES = {"tolist", "numpy", "cpu"}  # methods that read memory directly, without the dispatcher


class _Operators(TorchDispatchMode):
    """Counts operators that synchronise."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in READS or (name in INDEXING and any(_is_mask(index) for index in args[1])):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Counts methods of tensors that synchronise."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in COPIES:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    """Return whether an index is a boolean mask."""
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


class SyncCount:
    """A context manager that counts host reads.

    Attributes:
        counts: number of reads by operator or method.

    Examples:
        >>> with SyncCount() as syncs:
        ...     bool(torch.ones(2).all())
        True
        >>> syncs.total
        1
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._modes = (_Operators(self.counts), _Methods(self.counts))

    @property
    def total(self) -> int:
        """Number of reads so far."""
        return sum(self.counts.values())

    def __enter__(self) -> SyncCount:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)  # type: ignore[no-untyped-call]
