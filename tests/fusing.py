"""Helpers that bind chains to tiny models and decode with fused or lazy second streams."""

from __future__ import annotations

from typing import Any

import torch

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer

CODE = 'def f(x):\n    """Add one.\n\n    >>> f(1)\n    2\n    """\n'
PROMPTS = ["one prompt", "a second, longer prompt", CODE]


def bound(chain: str, model: Any = None, prompts: Any = PROMPTS) -> Any:
    """Return a chain bound to a tiny model; prompts of `cad` must contain its context "r"."""
    prompts = [text for text in prompts if "r" in text] if "cad" in chain else prompts
    return logitkit.chain(chain).bind(model or tiny_model(), tiny_tokenizer(), prompts)


def decode(call: Any, streams: str, **mode: Any) -> torch.Tensor:
    """Return the token ids of the rows after 12 new tokens."""
    torch.manual_seed(0)
    return call.generate(streams=streams, **{"max_new_tokens": 12, "do_sample": False, **mode})


def hooks(model: Any) -> set[int]:
    """Return the ids of the forward hooks on a model. Hooks of other tests on a shared model may vanish at any time."""
    return {*model._forward_hooks, *model._forward_pre_hooks}
