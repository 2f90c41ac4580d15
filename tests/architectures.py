"""Tiny random models of many architectures over the tiny tokenizer, for tests that must hold for each of them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    T5Config,
)

from logitkit.registry.laws import tiny_tokenizer

WIDTH = 272  # logits of the models: more than the tokenizer has ids, as padded vocabularies are
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3}
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, GROUPED),
    "mistral": (MistralConfig, GROUPED | {"sliding_window": 24}),
    "qwen2": (Qwen2Config, GROUPED),
    "gemma2": (Gemma2Config, GROUPED | {"head_dim": 8, "sliding_window": 24, "query_pre_attn_scalar": 8}),
    "phi": (PhiConfig, SIZES | {"max_position_embeddings": 256, "initializer_range": 0.3}),
    "gpt_neox": (GPTNeoXConfig, SIZES | {"max_position_embeddings": 256, "initializer_range": 0.3}),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3}),
    "opt": (
        OPTConfig,
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 32,
            "init_std": 0.3,
        },
    ),
    "bloom": (BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "falcon": (
        FalconConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3},
    ),
    "t5": (
        T5Config,
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "initializer_factor": 3.0},
    ),
    "bart": (
        BartConfig,
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 256,
            "init_std": 0.3,
            "forced_eos_token_id": None,
        },
    ),
}
DECODERS = [name for name in CONFIGS if name not in ("t5", "bart")]


@functools.cache
def architecture(name: str, seed: int = 0) -> Any:
    """A tiny model of an architecture, fp32, eval mode; the same weights for the same seed."""
    kind, sizes = CONFIGS[name]
    tokenizer = tiny_tokenizer()
    special = {
        "vocab_size": WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if name not in DECODERS:
        special["decoder_start_token_id"] = tokenizer.pad_token_id
    auto = AutoModelForCausalLM if name in DECODERS else AutoModelForSeq2SeqLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto.from_config(kind(**sizes, **special), dtype=torch.float32).eval()
