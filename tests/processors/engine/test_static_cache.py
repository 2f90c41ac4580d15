"""Chains give the same tokens when the generating model has a static cache or a compiled forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CompileConfig

from fusing import bound, decode
from logitkit.registry.laws import tiny_model

CHAINS = ["", "cfg(2.0)", "uscd(gate=0.3, lame='x') | temperature(0.8) | top_p(0.9)"]


def compiled() -> Any:
    """Return settings that compile the whole forward as one graph, on the CPU too; a graph break is an error."""
    config = CompileConfig(backend="eager", fullgraph=True, mode=None)
    config._compile_all_devices = True
    return config


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("sampling", [False, True])
def test_static_cache(chain: str, sampling: bool) -> None:
    """The tokens equal those of a dynamic cache; readers keep a cache of their own."""
    got = decode(bound(chain), "auto", cache_implementation="static", do_sample=sampling)
    assert torch.equal(got, decode(bound(chain), "lazy", do_sample=sampling))


@pytest.mark.parametrize("chain", CHAINS)
def test_compiled(chain: str) -> None:
    """Processors between forwards break no graph, and second streams are part of the compiled forward."""
    torch._dynamo.reset()
    model = tiny_model(5)
    got = decode(bound(chain, model), "auto", cache_implementation="static", compile_config=compiled())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert torch.equal(got, decode(bound(chain, model), "lazy"))


@pytest.mark.slow
def test_a_model_compiled_in_place() -> None:
    """The rows of second streams are part of the compiled forward."""
    torch._dynamo.reset()
    model = tiny_model(6)
    want = decode(bound("cfg(2.0)", model), "lazy", max_new_tokens=4)
    model.compile(backend="eager", dynamic=True)
    call = bound("cfg(2.0)", model)
    assert torch.equal(decode(call, "auto", max_new_tokens=4), want)
    assert call.trace.fusion.state == "fused"
