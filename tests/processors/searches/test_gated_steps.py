"""A gated step under every search: always open is the step without a gate, never open is no step and no forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer

STEP = "cfg(1.5, negative='a b')"
SEARCHES = [
    "smc(particles=4)",
    "best_of(n=3)",
    "mbr(n=3)",
    "goose(budget=4)",
    "beams(width=3)",
    "contrastive_search(alpha=0.6, top=3)",
]


def decode(chain: str) -> tuple[torch.Tensor, Any]:
    """Return the ids of two prompts of different length, and the trace."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    torch.manual_seed(0)
    call = logitkit.chain(chain).bind(model, tokenizer, ["the cat sat", "a dog"])
    sampling = {"do_sample": True} if "(n=" in chain else {}
    return call.ids(call.generate(max_new_tokens=6, **sampling)), call.trace


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("above", "step"), [(0.0, f"{STEP} | "), (99.0, "")], ids=["always open", "never open"])
def test_gates_keep_their_laws_under_a_search(search: str, above: float, step: str) -> None:
    gate = {"measure": "entropy", "above": above}
    ids, trace = decode(f"{STEP[:-1]}, gate={gate}) | {search}")
    assert torch.equal(ids, decode(step + search)[0])
    assert trace.fired == {"cfg": 1.0 if step else 0.0}
    assert (trace.forwards["negative prompt"] > 0) is bool(step)
