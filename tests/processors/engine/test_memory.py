"""Memory that a call holds, and memory that remains after it."""

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
from logitkit.processors.transformers_api import cache_of


def test_memory_is_freed_with_the_call() -> None:
    """Neither hooks nor prefetched logits keep a reader alive."""
    call = bound("cfg(2.0)")
    decode(call, "fused")
    gone = weakref.ref(call.composite.parts[0][1].streams[0])
    del call
    gc.collect()
    assert gone() is None


def test_the_cache_of_a_fused_run_is_twice_the_plain_one() -> None:
    """Second prompts that are no longer than the first ones add no padding, so the cache has exactly twice the size."""
    held: list[int] = []
    call = bound("uscd(gate=1.0)", prompts=[CODE])
    hook = call.model.register_forward_hook(
        lambda _, __, kwargs, ___: held.append(cache_of(kwargs).layers[0].keys.numel()), with_kwargs=True
    )
    decode(call, "fused")
    fused = held[-1]
    decode(bound("", prompts=[CODE]), "lazy")
    hook.remove()
    assert fused == 2 * held[-1]


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_nothing_grows_over_a_hundred_calls(streams: str) -> None:
    """Traced memory grows by less than 320 bytes a call, and resident memory by less than 16 MiB in all.

    The test runs in a process of its own. Objects made before tracing began are untraced; as they are replaced, traced
    memory rises for about a hundred calls. A reader or tensor kept by each call has more than 500 bytes.
    """
    here = Path(__file__)
    paths = [str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    run = [sys.executable, str(here), streams]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    traced, resident = map(int, done.stdout.split())
    assert traced < 32_000 and resident < 16 * 2**20


def test_a_leak_would_be_noticed() -> None:
    """Keeping one trace for each call exceeds the limit of the test above."""
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
    """Run short calls, each with a new binding."""
    for _ in range(count):
        call = bound("cfg(2.0) | uscd(gate=1.0, lame='x')", prompts=["one prompt"])
        decode(call, streams, max_new_tokens=3)
        if kept is not None:
            kept.append(call.trace)
    gc.collect()


def _growth(streams: str) -> tuple[int, int]:
    """Return the growth of traced and of resident memory over a hundred calls, in bytes."""
    process = psutil.Process()
    tracemalloc.start()
    _calls(streams, 120)
    traced, resident = tracemalloc.get_traced_memory()[0], process.memory_info().rss
    _calls(streams, 100)
    return tracemalloc.get_traced_memory()[0] - traced, process.memory_info().rss - resident


if __name__ == "__main__":
    print(*_growth(sys.argv[1]))
