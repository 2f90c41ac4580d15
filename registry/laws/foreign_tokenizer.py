"""A tiny model with a tokenizer of its own, on which the laws try methods that cross tokenizers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MERGES = ("t h", "th e", "e r", "o n", "a n", "i n", "Ġ the", "Ġ a", "Ġ o", "r o", "l o", "Ã ©")
WIDTH = 300  # more ids than the tokenizer has


@functools.cache
def foreign_tokenizer() -> Any:
    """Byte-level BPE whose special tokens come first and whose letters are in reverse: no id means the same."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    specials = ["<nothing>", "<begin>", "<end>"]
    words = [*specials, *letters, *(merge.replace(" ", "") for merge in MERGES)]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [(merge.split(" ")[0], merge.split(" ")[1]) for merge in MERGES]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<nothing>", bos_token="<begin>", eos_token="<end>"
    )


@functools.cache
def foreign_model(seed: int = 7) -> Any:
    """A random two-layer Llama over `foreign_tokenizer`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=WIDTH,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        return LlamaForCausalLM(config).eval()


def stranger(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Resources of a Spec's example: the model ``stranger``, with its tokenizer."""
    return {"stranger": foreign_model(), "tokenizers": {"stranger": foreign_tokenizer()}}
