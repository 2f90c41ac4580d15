"""What a run was made with: versions, revision, hardware, time."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from logitkit.bench.tasks import sandbox

PACKAGES = ("logitkit", "torch", "transformers", "tokenizers", "numpy", "scipy")


def environment(engine: str = "local", *, executes: bool = False) -> dict[str, Any]:
    """Plain data for a manifest. Names no host and no user.

    Args:
        engine: who runs it.
        executes: programs of a model may be run; how they are kept in is said then.
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
    """The git revision of this package, ``+`` behind it where files were changed; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        run = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    if any(done.returncode for done in run):
        return None
    return run[0].stdout.strip() + ("+" if run[1].stdout.strip() else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
