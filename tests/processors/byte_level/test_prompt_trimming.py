"""Trimming of prompts: special tokens, chat prompts and fill-in-the-middle prompts."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

import logitkit
from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.prompt_trimming import trim
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.byte_covers import random_model, random_tokenizer


def test_special_tokens_and_chats_are_left_alone() -> None:
    """Text before a special token is not trimmed, and chat prompts are not trimmed at all."""
    tokenizer = random_tokenizer(11, merges=10)
    vocabulary = Vocabulary.of(tokenizer)
    covers = Covers.of(tokenizer, vocabulary)
    end = tokenizer.eos_token_id
    assert trim([0, 1, end], tokenizer, vocabulary, covers) == ([0, 1, end], b"")
    tokens, removed = trim(
        [0, end, *tokenizer("ab a", add_special_tokens=False)["input_ids"]], tokenizer, vocabulary, covers
    )
    assert tokens[:2] == [0, end] and removed and (vocabulary.join(tokens) + removed) == b"aab a"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}:"
    call = logitkit.chain("byte_boundary()").bind(tiny_model(), tokenizer, [{"role": "user", "content": "hi"}])
    tokenizer.chat_template = None
    assert call.prompts.removed == () and "nothing is removed" in call.trace.notices[0]


def test_fill_in_the_middle() -> None:
    """The last bytes of a fill-in-the-middle prefix are spelled after the middle sentinel."""
    tokenizer = random_tokenizer(4, merges=10)
    names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
    model = random_model(tokenizer, 4)
    prefix, suffix, middle = tokenizer.convert_tokens_to_ids(names)
    call = logitkit.chain("byte_boundary()").bind(model, tokenizer, f"{names[0]}ab a{names[1]} b{names[2]}")
    ids = call.prompts.ids[0].tolist()
    assert (ids[0], ids[-1]) == (prefix, middle) and suffix in ids
    (removed,) = call.prompts.removed
    vocabulary = Vocabulary.of(tokenizer, model.config.vocab_size)
    assert removed and vocabulary.join(ids[1 : ids.index(suffix)]) + removed == b"ab a"
    out = call.generate(max_new_tokens=6, do_sample=True)
    assert vocabulary.join(out[0, call.prompts.width :].tolist()).startswith(removed)


@pytest.mark.parametrize("form", ["{1} b{0}ab a{2}", "{0}{1} b{2}ab a"])
def test_suffix_first_prompts(form: str) -> None:
    """Prompts with the suffix before the prefix are trimmed in both forms; the continuation spells the bytes again."""
    tokenizer = random_tokenizer(4, merges=10)
    names = ["<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    model = random_model(tokenizer, 4)
    call = logitkit.chain("byte_boundary()").bind(model, tokenizer, form.format(*names))
    (removed,) = call.prompts.removed
    vocabulary = Vocabulary.of(tokenizer, model.config.vocab_size)
    ids = call.prompts.ids[0].tolist()
    assert removed and vocabulary.join(ids) + removed == b" bab a"
    assert ("fill-in-the-middle" in call.trace.notices[0]) == form.endswith("{2}")
    out = call.generate(max_new_tokens=6, do_sample=True)
    assert vocabulary.join(out[0, call.prompts.width :].tolist()).startswith(removed)


def test_a_prompt_that_ends_with_a_special_token_says_so() -> None:
    """Nothing is removed before a special token, and the notice gives the reason."""
    tokenizer = random_tokenizer(4, merges=10)
    call = logitkit.chain("byte_boundary()").bind(random_model(tokenizer, 4), tokenizer, "ab a</s>")
    assert call.trace.notices == [
        "byte_boundary: 0 bytes are removed from the end of the prompt (the prompt ends with a special token)"
    ]
