"""Tokenizers other than the tiny one, tiny models over them, and a reference reader across tokenizers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from fakes import seeded
from logitkit.registry.laws import foreign_tokenizer as foreign_tokenizer

WIDTH = 320  # more ids than the tokenizers have


@functools.cache
def sentencepiece_tokenizer() -> Any:
    """Return a BPE tokenizer with byte fallback and a space before every text, as Llama 2 and Mistral have."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "t", "h", "e", "a", "o", "n", "r", "l", "th", "the", "▁the", "▁a", "on", "er", "ro", "lo"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("o", "n"), ("e", "r"), ("r", "o"), ("l", "o")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([AddedToken(token, special=True) for token in pieces[:3]])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@functools.cache
def foreign_model(kind: str = "rotary", seed: int = 0) -> Any:
    """Return a tiny model over a foreign tokenizer: ``rotary``, ``absolute``, or ``sliding`` with a window of 8."""
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "absolute":
        config: Any = GPT2Config(
            vocab_size=WIDTH, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.4, **ends
        )
        return seeded(lambda: GPT2LMHeadModel(config), seed)
    config = MistralConfig(
        vocab_size=WIDTH,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8 if kind == "sliding" else None,
        max_position_embeddings=256,
        initializer_range=0.3,
        **ends,
    )
    return seeded(lambda: MistralForCausalLM(config), seed)


class RecomputeForeign:
    """Reference reader: decodes each row alone, tokenizes the whole text, and reads it without a cache.

    Args:
        model: the model of the reader.
        own: its own prompts, as its own token ids.
        prompts: the prompts of the generating model, ``[prompts, width]``.
        retokenize: function from the bytes of a text to the tokens of the reader.
        token_bytes: function from a token of the generating model to its bytes.
    """

    def __init__(
        self, model: Any, own: list[list[int]], prompts: torch.Tensor, retokenize: Any, token_bytes: Any
    ) -> None:
        self.model, self.own, self.prompts = model, own, prompts
        self.retokenize, self.token_bytes = retokenize, token_bytes

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.logits_of(row) for row in input_ids])

    def logits_of(self, row: torch.Tensor) -> torch.Tensor:
        """Return the logits of one row, ``[1, vocab]``."""
        width = self.prompts.shape[1]
        prompt = next(i for i, ids in enumerate(self.prompts) if torch.equal(ids, row[:width]))
        text = b"".join(self.token_bytes(token) for token in row[width:].tolist())
        ids = torch.tensor([[*self.own[prompt], *self.retokenize(text)]])
        return self.model(input_ids=ids, use_cache=False).logits[:, -1].float()


__all__ = ["RecomputeForeign", "foreign_model", "foreign_tokenizer", "sentencepiece_tokenizer"]
