"""`ByteBoundary` on prompts whose tokens are not the tokenizer's own encoding: no byte of a prompt is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import logitkit
from logitkit.errors import PromptError
from logitkit.processors.byte_level.continuation_table import PathReader, continuation_table
from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.prompt_trimming import TrimmedPrompt
from logitkit.processors.tokens import Vocabulary
from real_tokenizers import real_tokenizer
from reference.byte_covers import random_model, random_tokenizer


def trained(texts: list[str], size: int) -> Any:
    """Return a byte-level BPE tokenizer with the GPT-2 pretokenizer, trained on texts."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def whole(model: Any, tokenizer: Any, ids: list[int], new: int = 12) -> tuple[bytes, bytes]:
    """Return the bytes of a prompt, and the bytes of the trimmed prompt with its greedy continuation."""
    rows = torch.tensor([ids])
    inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    call = logitkit.chain("byte_boundary()").bind(model, tokenizer, inputs)
    out = call.generate(max_new_tokens=new, do_sample=False)
    vocabulary = Vocabulary.of(tokenizer, model.config.vocab_size)
    return vocabulary.join(ids), vocabulary.join(out[0].tolist())


def test_letters_that_the_tokenizer_would_have_merged() -> None:
    """The tokens of single letters of "the ca" keep all their bytes: the text begins "the ca"."""
    tokenizer = trained(["the cat sat on the catalog " * 9], 290)
    vocabulary = Vocabulary.of(tokenizer)
    ids = [vocabulary.ids_of[bytes([byte])][0] for byte in b"the ca"]
    _, written = whole(random_model(tokenizer, 3), tokenizer, ids)
    assert written.startswith(b"the ca")


@pytest.mark.data
def test_pieces_that_were_encoded_apart(shared_tokenizers: Path) -> None:
    """GPT-2's tokens of "x = fo" and of "o.ba", joined, keep the bytes "ba"."""
    tokenizer = real_tokenizer(shared_tokenizers / "gpt2")
    ids = tokenizer("x = fo")["input_ids"] + tokenizer("o.ba")["input_ids"]
    _, written = whole(random_model(tokenizer, 3, vocab_size=len(tokenizer)), tokenizer, ids)
    assert written.startswith(b"x = foo.ba")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), picks=st.lists(st.integers(0, 999), min_size=1, max_size=9))
def test_any_tokens_keep_their_bytes(seed: int, picks: list[int]) -> None:
    """Any sequence of tokens with bytes keeps them all, broken UTF-8 included."""
    tokenizer = random_tokenizer(seed, letters=b"ab \xc3\xa9", merges=10)
    model = random_model(tokenizer, seed)
    known = [number for number, text in enumerate(Vocabulary.of(tokenizer).token_bytes) if text]
    prompt, written = whole(model, tokenizer, [known[pick % len(known)] for pick in picks], new=16)
    end = Vocabulary.of(tokenizer).join([tokenizer.eos_token_id])
    assert written.startswith(prompt) and not end


def test_removed_bytes_that_no_tokens_spell_are_refused() -> None:
    """A table for removed bytes that no allowed tokens spell is an error and not a table without constraints."""
    tokenizer = random_tokenizer(11, merges=10)
    covers = Covers.of(tokenizer, Vocabulary.of(tokenizer))
    prompt = TrimmedPrompt(tokens=[0], context_tokens=[0], removed=b"z")
    with pytest.raises(PromptError, match="must be ones that its tokenizer can spell there, got b'z'"):
        continuation_table([prompt], covers, PathReader(None))
