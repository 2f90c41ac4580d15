"""What calls hold, and what they leave behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import psutil
import pytest

from fusing import CODE, bound, decode


def test_memory_is_freed_with_the_call() -> None:
    """Neither hooks nor given logits keep it."""
    call = bound("cfg(2.0)")
    decode(call, "fused")
    gone = weakref.ref(call.composite.parts[0][1].streams[0])
    del call
    gc.collect()
    assert gone() is None


def test_the_cache_of_a_fused_run_is_twice_the_plain_one() -> None:
    """At most: second prompts no longer than the first add no padding."""
    held: list[int] = []
    call = bound("uscd(gate=1.0)", prompts=[CODE])
    hook = call.model.register_forward_hook(
        lambda _, __, kwargs, ___: held.append(kwargs["past_key_values"].layers[0].keys.numel()), with_kwargs=True
    )
    decode(call, "fused")
    fused = held[-1]
    decode(bound("", prompts=[CODE]), "lazy")
    hook.remove()
    assert fused == 2 * held[-1]


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_nothing_grows_over_a_hundred_calls(streams: str) -> None:
    """Python's own memory by tracemalloc (320 bytes a call), the process's by its resident size (16 MiB in all).

    In a process of its own: objects made before tracing began are untraced, and as they are replaced the traced
    memory rises for about a hundred calls. One reader or tensor kept a call would show: each is above 500 bytes.
    """
    here = Path(__file__)
    paths = [str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    run = [sys.executable, str(here), streams]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    traced, resident = map(int, done.stdout.split())
    assert traced < 32_000 and resident < 16 * 2**20


def test_a_leak_would_be_noticed() -> None:
    """One trace kept a call is more than the test above allows."""
    kept: list[object] = []
    tracemalloc.start()
    try:
        _calls("fused", 10)
        traced = tracemalloc.get_traced_memory()[0]
        _calls("fused", 20, kept)
        grown = tracemalloc.get_traced_memory()[0] - traced
    finally:
        tracemalloc.stop()
    assert grown > 20 * 320


def _calls(streams: str, count: int, kept: list[object] | None = None) -> None:
    """Short calls, each bound anew."""
    for _ in range(count):
        call = bound("cfg(2.0) | uscd(gate=1.0, lame='x')", prompts=["one prompt"])
        decode(call, streams, max_new_tokens=3)
        if kept is not None:
            kept.append(call.trace)
    gc.collect()


def _growth(streams: str) -> tuple[int, int]:
    """How many bytes a hundred calls leave behind: traced ones, and resident ones."""
    process = psutil.Process()
    tracemalloc.start()
    _calls(streams, 120)
    traced, resident = tracemalloc.get_traced_memory()[0], process.memory_info().rss
    _calls(streams, 100)
    return tracemalloc.get_traced_memory()[0] - traced, process.memory_info().rss - resident


if __name__ == "__main__":
    print(*_growth(sys.argv[1]))
