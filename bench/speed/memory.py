"""Peak memory of tensors on any device: every storage is counted from its creation to its release."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """A context manager that measures the peak memory of tensors created inside it.

    Tensors that existed before, such as the model, are not counted. Scratch memory inside one operator is not seen.

    Attributes:
        peak: largest number of bytes alive at once.
        live: bytes alive now.

    Examples:
        >>> with PeakMemory() as memory:
        ...     tensor = torch.zeros(1000)
        >>> memory.peak
        4000
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and _storage(leaf) not in inputs:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is released."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def release(_: Any) -> None:
            self.live -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, release)
        self.live += size
        self.peak = max(self.peak, self.live)


def _storage(tensor: torch.Tensor) -> int:
    """Return an identifier of a tensor's storage, which views share."""
    return int(tensor.untyped_storage()._cdata)
