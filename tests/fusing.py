"""Chains bound to tiny models and decoded, with their second streams fused or alone."""

from __future__ import annotations

from typing import Any

import torch

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer

CODE = 'def f(x):\n    """Add one.\n\n    >>> f(1)\n    2\n    """\n'
PROMPTS = ["one prompt", "a second, longer prompt", CODE]


def bound(chain: str, model: Any = None, prompts: Any = PROMPTS) -> Any:
    """A chain bound to a tiny model."""
    prompts = [text for text in prompts if "r" in text] if "cad" in chain else prompts
    return logitkit.chain(chain).bind(model or tiny_model(), tiny_tokenizer(), prompts)


def decode(call: Any, streams: str, **mode: Any) -> torch.Tensor:
    """Ids of 12 new tokens."""
    torch.manual_seed(0)
    return call.generate(streams=streams, **{"max_new_tokens": 12, "do_sample": False, **mode})


def hooks(model: Any) -> set[int]:
    """The hooks on a model now; those of other tests' calls, which share the model, may go at any moment."""
    return {*model._forward_hooks, *model._forward_pre_hooks}
