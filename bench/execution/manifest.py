"""The environment of a run: versions, revision, hardware and time."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from logitkit.bench.tasks import sandbox

PACKAGES = ("logitkit", "torch", "transformers", "tokenizers", "numpy", "scipy", "statsmodels")


def environment(engine: str = "local", *, executes: bool = False) -> dict[str, Any]:
    """Return the environment of this process as plain data, without the names of host and user.

    Args:
        engine: name of the engine that runs the units.
        executes: whether tasks may execute programs written by a model; the isolation of these programs is recorded.

    Examples:
        >>> sorted(environment())
        ['code_execution', 'engine', 'hardware', 'revision', 'time', 'versions']
    """
    import torch

    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "engine": engine,
        "code_execution": sandbox.isolation() if executes else None,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "revision": revision(),
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": _memory(),
            "cuda": cuda,
        },
    }


def revision() -> str | None:
    """Return the git revision of this package; ``+`` marks changed files. None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        results = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    if any(result.returncode for result in results):
        return None
    return results[0].stdout.strip() + ("+" if results[1].stdout.strip() else "")


def _version(name: str) -> str | None:
    """Return the installed version of a distribution; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name where the system states it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> float | None:
    """Return the physical memory in GiB; None where the system does not state it."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
