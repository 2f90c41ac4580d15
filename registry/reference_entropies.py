"""Entropies of a chain in front of the tokens of reference texts, to which the threshold of `AdaDec` is fitted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.samplers.temperature import entropies
from logitkit.registry.bind import bind
from logitkit.registry.chain import Chain
from logitkit.registry.scoring import continuation_tokens, refuse_searches, scores_along


@torch.no_grad()
def reference_entropies(chain: Chain, model: Any, tokenizer: Any, prompt: str, text: str) -> tuple[Tensor, Tensor]:
    """Return how unsure a chain is before each token of a text, and whether its likeliest token is the token.

    Args:
        chain: steps; empty: the model itself.
        model, tokenizer: the generating model, decoder-only.
        prompt: what stands before the text.
        text: the reference, not empty.

    Returns:
        Entropies in nats, float64 ``[tokens]``, and bools, ``[tokens]``.

    Raises:
        ModeError: a chain with a search or a selector.
        ModelError: a model with an encoder, or prompt and text longer than the context of the model.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> entropy, right = reference_entropies(Chain(""), tiny_model(), tiny_tokenizer(), "ab", "cde")
    >>> entropy.shape, right.dtype, bool((entropy > 0).all())
    (torch.Size([3]), torch.bool, True)
    """
    refuse_searches(chain, "train-adadec")
    if model.config.is_encoder_decoder:
        raise ModelError("train-adadec: the model must be decoder-only; choose another model")
    call = bind(chain, model, tokenizer, [prompt], trace=False, tokenizers=None, resources=None)
    rows = [continuation_tokens(call, 0, text)]
    unsure, right = [], []
    for _, scores, tokens in scores_along(call, rows):
        unsure.append(entropies(scores)[0][0, 0])
        right.append(scores[0].argmax() == tokens[0])
    return torch.stack(unsure).cpu(), torch.stack(right).cpu()
