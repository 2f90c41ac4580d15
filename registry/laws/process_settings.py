"""Settings of torch and of the process that a processor could change: read, compared and set back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Set the settings back after the body.

    >>> with kept_settings():
    ...     torch.set_default_dtype(torch.float64)
    >>> torch.get_default_dtype()
    torch.float32
    """
    before = settings()
    try:
        yield
    finally:
        restore(before)


def settings() -> dict[str, Any]:
    """Return the settings by name.

    >>> settings()["the default dtype"]
    torch.float32
    """
    return {
        "gradient mode": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "the current folder": Path.cwd(),
        "the standard output": sys.stdout,
    }


def restore(earlier: dict[str, Any]) -> None:
    """Set what differs from the earlier settings back.

    >>> restore(settings())
    """
    setters: dict[str, Callable[[Any], Any]] = {
        "gradient mode": torch.set_grad_enabled,
        "the default dtype": torch.set_default_dtype,
        "the default device": torch.set_default_device,
        "the number of threads": torch.set_num_threads,
        "deterministic algorithms": torch.use_deterministic_algorithms,
        "the precision of matrix products": torch.set_float32_matmul_precision,
        "the current folder": os.chdir,
        "the standard output": lambda stream: setattr(sys, "stdout", stream),
    }
    now = settings()
    for name, value in earlier.items():
        if now[name] != value:
            setters[name](value)
