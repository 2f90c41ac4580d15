"""Calls of the tiny model with an attribute, rows that continue their prompts, and a tiny classifier of rows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaForSequenceClassification

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH, llama_config, seeded

END, A, B, C = 257, 64, 65, 66


def bound(chain: str, prompts: Any = "a prompt", **named: Any) -> Any:
    return logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts, **named)


def following(call: Any, text: str = "") -> Any:
    """The rows of a call, each continued by a text."""
    tail = torch.tensor([tiny_tokenizer()(text)["input_ids"]], dtype=torch.long)
    return torch.cat([call.prompts.ids, tail.repeat(len(call.prompts.ids), 1)], dim=1)


def classifier(labels: int, width: int = WIDTH, pad: int | None = 258) -> Any:
    config = llama_config(width, tiny_tokenizer())
    config.num_labels, config.pad_token_id = labels, pad
    if labels > 1:
        config.id2label = {number: f"kind {number}" for number in range(labels)}
    return seeded(5, lambda: LlamaForSequenceClassification(config))
