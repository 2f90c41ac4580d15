"""The dtype and the device on which a model is loaded, from their names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from logitkit.errors import ParameterError, closest

DTYPES = ("float32", "bfloat16", "float16")


def placement(owner: str, device: str, dtype: str) -> Any:
    """Return a dtype and a device for the argument ``like`` of `logitkit.models.load`.

    Args:
        owner: named in errors.
        device: a device of torch, such as ``cuda:1``.
        dtype: one of `DTYPES`.

    Raises:
        ParameterError: torch does not have the device on this machine, or the dtype is unknown.

    >>> placement("run", "cpu", "bfloat16").dtype
    torch.bfloat16
    """
    import torch

    if dtype not in DTYPES:
        close = closest(dtype, DTYPES)
        raise ParameterError(
            owner, "dtype", "float32, bfloat16 or float16", dtype, f"did you mean {close!r}?" if close else ""
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(owner, "device", "a device that torch has on this machine", device) from error
    return SimpleNamespace(dtype=getattr(torch, dtype), device=torch.device(device))
