"""Tiny random models of further architectures, and a random router head."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from logitkit.processors.cascade import ModelPair, RouterHead, RouterHeadConfig, RouterNetwork
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH, encoder_decoder_model

SPECIALS = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}


def seeded(make: Any, seed: int) -> Any:
    """Return a model with random weights of this seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def own_model() -> Any:
    """Return a copy of ``tiny_model()`` that no other test asked for hidden states: the hooks for them stay on a model.

    A model with such hooks cannot be pickled.
    """
    known = tiny_model()
    own = type(known)(copy.deepcopy(known.config)).eval()
    own.load_state_dict(known.state_dict())
    own.generation_config = copy.deepcopy(known.generation_config)
    return own


@functools.cache
def absolute_model(seed: int = 0) -> Any:
    """Return a GPT-2, whose absolute positions make a missing position_ids under padding visible."""
    config = GPT2Config(
        vocab_size=WIDTH, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.4, **SPECIALS
    )
    return seeded(lambda: GPT2LMHeadModel(config), seed)


@functools.cache
def sliding_model(seed: int = 0) -> Any:
    """Return a Mistral with an attention window of 8 tokens, shorter than the texts of the tests."""
    config = MistralConfig(
        vocab_size=WIDTH,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        max_position_embeddings=512,
        initializer_range=0.3,
        **SPECIALS,
    )
    return seeded(lambda: MistralForCausalLM(config), seed)


def router_head(model: Any, tokenizer: Any) -> RouterHead:
    """Return a random router head for ``tiny_model(0)`` and ``tiny_model(1)`` that routes about half of the tokens."""
    config = RouterHeadConfig(hidden_size=32, embedding_size=32, top_logits=20, width=16, blocks=1)
    network = seeded(lambda: RouterNetwork(config), 0)
    with torch.no_grad():
        network.leave[1].weight.mul_(20)
    pair = ModelPair(small=model, large=tiny_model(1), tokenizer=tokenizer)
    return RouterHead(network, config, threshold=0.5, pair=pair.fingerprint(), report={})


__all__ = ["absolute_model", "encoder_decoder_model", "router_head", "sliding_model", "tiny_tokenizer"]
