"""The cost of a fused forward: measured, and estimated for a cache that is mostly padding."""

from __future__ import annotations

import inspect
import time
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache

from logitkit.processors.engine.forward_plan import ForwardPlan
from logitkit.processors.engine.thin_matmul import is_faster, thin_twin
from logitkit.processors.model_facts import text_config

# Reading padding of this size, in numbers of the cache for each weight, costs as much as a forward saves.
MAX_PADDING = 0.5
FEW_TOKENS = 256  # padded tokens a row whose cost is not worth a choice
_SECONDS: WeakKeyDictionary[Any, dict[tuple[int, int, bool], float]] = WeakKeyDictionary()  # rows, tokens, thin


def fused_cost(model: Any, rows: int, times: int) -> float:
    """Return the cost of a forward of ``times * rows`` rows, in forwards of ``rows`` rows, one token a row.

    Both are measured once for each model and number of rows. The larger forward runs as a fused forward does.
    """
    return forward_seconds(model, rows * times, 1, times > 1) / forward_seconds(model, rows, 1, False)


def forward_seconds(model: Any, rows: int, tokens: int, may_be_thin: bool) -> float:
    """Return the seconds of a forward of a chunk in each row, measured once for each model and size.

    The head computes at most two logits a row, as for a text that rides behind the new token.

    Args:
        model: the model.
        rows: rows of the forward.
        tokens: tokens of each row.
        may_be_thin: whether products of few rows run in the faster order of their operands.
    """
    seconds = _SECONDS.setdefault(model, {})
    key = rows, tokens, may_be_thin and is_faster(model, rows * tokens)
    if key not in seconds:
        seconds[key] = _measured_seconds(model, *key)
    return seconds[key]


def padding_cost(plan: ForwardPlan) -> str | None:
    """Return the reason why the padding of a plan's dynamic cache costs more than separate forwards, or None.

    A fused step saves reading the weights again, and reads the padding of the shorter prompts in every layer. Both are
    limited by memory. A static cache is read at its full length whatever it holds.

    Args:
        plan: a plan before its first forward.
    """
    widths = [plan.prompts.width, *(stream.width for stream in plan.streams)]
    padding = sum(max(widths) - width for width in widths)
    if padding <= FEW_TOKENS or type(plan.cache) is not DynamicCache:
        return None
    config = text_config(plan.model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    numbers = padding * len(plan.index) * config.num_hidden_layers * 2 * heads * size
    saved = len(plan.streams) * sum(weight.numel() for weight in plan.model.parameters())
    if numbers <= MAX_PADDING * saved:
        return None
    return f"{padding} padded tokens a row in the cache cost more than {len(plan.streams)} forward(s) a step"


@torch.no_grad()
def _measured_seconds(model: Any, rows: int, tokens: int, thin: bool) -> float:
    """Return the seconds of one forward, the shortest of three."""
    timings = []
    kept = {"logits_to_keep": min(tokens, 2)} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    for _ in range(3):
        start = time.perf_counter()
        ids = torch.zeros((rows, tokens), dtype=torch.long, device=model.device)
        forward = thin_twin(model) if thin else model
        float(forward(input_ids=ids, use_cache=False, **kept).logits[0, -1, 0])  # waits for the device
        timings.append(time.perf_counter() - start)
    return min(timings)
