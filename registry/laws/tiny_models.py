"""Random models of a few thousand weights and their tokenizers, on which laws, tests and examples run.

Every model is built from a seed, needs no download, and is cached for the life of the process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

Model = TypeVar("Model")

WIDTH = 272  # columns of the tiny models' logits: more than the tokenizer has tokens, as in padded vocabularies
FOREIGN_WIDTH = 300  # the same for the foreign models
MERGES = ("t h", "th e", "e r", "o n", "a n", "i n", "Ġ the", "Ġ a", "Ġ o", "r o", "l o", "Ã ©")


@functools.cache
def tiny_tokenizer() -> Any:
    """Return a tokenizer with one token for each byte, and begin, end and padding tokens.

    >>> tiny_tokenizer().tokenize("ab c")
    ['a', 'b', 'Ġ', 'c']
    """
    vocabulary = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = _byte_level(models.BPE(vocab=vocabulary, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@functools.cache
def tiny_model(seed: int = 0) -> Any:
    """Return a random two-layer Llama over `tiny_tokenizer`, in fp32 and evaluation mode.

    The weights are large enough that the next-token distributions are not nearly uniform.

    Args:
        seed: of the weights; models of different seeds share the vocabulary and differ in their predictions.

    >>> tiny_model().config.vocab_size, tiny_model(1) is tiny_model(1)
    (272, True)
    """
    return seeded(seed, lambda: LlamaForCausalLM(llama_config(WIDTH, tiny_tokenizer())))


def wide_model(width: int, seed: int = 0) -> Any:
    """Return a random two-layer Llama with ``width`` logits over `tiny_tokenizer`, for timing work on wide rows.

    The model is not cached: it may be moved to another device.

    >>> wide_model(1000).config.vocab_size
    1000
    """
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=width, initializer_range=0.3, **sizes, **special_ids(tiny_tokenizer()))
    return seeded(seed, lambda: LlamaForCausalLM(config))


@functools.cache
def foreign_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer with a dozen merges, none of whose ids agrees with `tiny_tokenizer`.

    Special tokens come first and the byte tokens are in reverse order.

    >>> foreign_tokenizer().tokenize("the other")
    ['the', 'Ġo', 'the', 'r']
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    specials = ["<nothing>", "<begin>", "<end>"]
    words = [*specials, *letters, *(merge.replace(" ", "") for merge in MERGES)]
    merges = [(merge.split(" ")[0], merge.split(" ")[1]) for merge in MERGES]
    inner = _byte_level(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    inner.add_special_tokens([AddedToken(token, special=True) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<nothing>", bos_token="<begin>", eos_token="<end>"
    )


@functools.cache
def foreign_model(seed: int = 7) -> Any:
    """Return a random two-layer Llama over `foreign_tokenizer`, in fp32 and evaluation mode.

    >>> foreign_model().config.vocab_size
    300
    """
    return seeded(seed, lambda: LlamaForCausalLM(llama_config(FOREIGN_WIDTH, foreign_tokenizer())))


@functools.cache
def encoder_decoder_model(seed: int = 0, *, foreign: bool = False) -> Any:
    """Return a random two-layer T5 over `tiny_tokenizer`, or over `foreign_tokenizer` with ``foreign=True``."""
    tokenizer = foreign_tokenizer() if foreign else tiny_tokenizer()
    config_class: Any = T5Config
    config = config_class(
        vocab_size=WIDTH,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=2.0,
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,
        **special_ids(tokenizer),
    )
    return seeded(seed, lambda: T5ForConditionalGeneration(config))


def _byte_level(model: Any) -> Tokenizer:
    """Return a tokenizer that reads and writes bytes in the alphabet of GPT-2."""
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def llama_config(width: int, tokenizer: Any) -> LlamaConfig:
    """Return the configuration of a two-layer Llama with ``width`` logits."""
    return LlamaConfig(
        vocab_size=width,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        **special_ids(tokenizer),
    )


def special_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the begin, end and padding tokens of a tokenizer as settings of a configuration."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def seeded(seed: int, build: Callable[[], Model]) -> Model:
    """Build a model in evaluation mode with weights of this seed; the global generator keeps its state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = build()
    return model.eval()  # type: ignore[no-any-return]
