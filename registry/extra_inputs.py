"""Inputs of a model other than tokens, such as images, which second streams receive with their prompts only."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from logitkit.errors import ModeError
from logitkit.processors.engine.prompt_inputs import belongs_to_generate
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.transformers_api import CACHE_NAMES

# Keyword arguments of generate that are no inputs of a forward, or that streams read from the rows.
KNOWN = {*inspect.signature(GenerationMixin.generate).parameters, *vars(GenerationConfig()), *CACHE_NAMES}
KNOWN |= {"tokenizer", "assistant_tokenizer", "decoder_input_ids", "decoder_attention_mask", "return_dict"}
KNOWN |= {"logits_to_keep", "cache_position", "use_cache"}


def extra_inputs(model: Any, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that are inputs of the model besides tokens, such as ``pixel_values``.

    >>> import torch
    >>> from logitkit.registry.laws import tiny_model
    >>> extra_inputs(tiny_model(), {"pixel_values": torch.zeros(1), "position_ids": [[0]], "num_beams": 2})
    ['pixel_values', 'position_ids']
    """
    parameters = inspect.signature(model.forward).parameters
    custom = settings.get("custom_generate") is not None  # a custom loop may take tensors of its own
    return [
        name
        for name, value in settings.items()
        if value is not None
        and name not in KNOWN
        and (name in parameters or (isinstance(value, Tensor) and not custom))
    ]


def refuse_extra_inputs(model: Any, prompts: Prompts, streams: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Refuse inputs of the generating model that its second streams do not receive, or that are bound already.

    Args:
        model: the generating model.
        prompts: the prompts of the call.
        streams: the names of the second streams.
        settings: keyword arguments of `generate`.

    Raises:
        ModeError: lists the inputs and the streams.
    """
    twice = [name for name in settings if name in prompts.inputs]
    if twice:
        raise ModeError(f"generate: {twice[0]} must be given once, got it bound with the prompts too; leave it out")
    names = ", ".join(repr(name) for name in streams)
    extra = extra_inputs(model, settings) if names else []
    if extra and belongs_to_generate(extra[0]):
        raise ModeError(
            f"generate: every second stream must read the inputs that the model reads, got also {', '.join(extra)}, "
            f"which the chain cannot hand to {names}; leave them out, or use a chain without second streams"
        )
    if extra:
        raise ModeError(
            f"generate: every second stream must read the inputs that the model reads, got also {', '.join(extra)}, "
            f"which reach {names} only when they are bound with the prompts: "
            f"chain.bind(model, tokenizer, {{'input_ids': ..., 'attention_mask': ..., {extra[0]!r}: ...}})"
        )
