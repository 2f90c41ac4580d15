"""Prompts that an encoder reads: a padded batch gives what each prompt gives alone, with absolute positions too."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

import logitkit
from fakes import SPECIALS, encoder_decoder_model, seeded
from logitkit.processors.engine import read_prompts
from logitkit.registry.laws import tiny_tokenizer

PROMPTS = ["fox", "a much longer prompt", "the sea"]


@functools.cache
def bart(seed: int = 0) -> Any:
    """Return a Bart, whose encoder counts absolute positions from the left end of a row, padding included."""
    config = BartConfig(
        vocab_size=272,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.3,
        decoder_start_token_id=SPECIALS["eos_token_id"],
        forced_eos_token_id=None,
        **SPECIALS,
    )
    return seeded(lambda: BartForConditionalGeneration(config), seed)


CHAINS = [
    "",
    "cfg(2.0, negative='a fish')",
    "cfg(2.0, negative=['no', 'a long negative prompt', 'fish'])",
    "contrastive('other', beta=0.5)",
]
MODELS = {"bart": bart, "t5": encoder_decoder_model}


def texts(chain: str, make: Any, prompts: Any, **settings: Any) -> list[list[int]]:
    """Return greedy ids without an end token."""
    resources = {"other": make(1)} if "other" in chain else {}
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None} | settings
    done = logitkit.generate(make(), tiny_tokenizer(), prompts, chain=chain, resources=resources, **settings)
    return done.ids.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_equals_its_prompts_alone(kind: str, chain: str, beams: int) -> None:
    """The ids of each prompt are the same alone and in a batch that pads it."""
    alone = []
    for number, prompt in enumerate(PROMPTS):
        negatives = ["no", "a long negative prompt", "fish"][number]
        single = chain.replace("['no', 'a long negative prompt', 'fish']", repr(negatives))
        alone += texts(single, MODELS[kind], prompt, num_beams=beams)
    assert texts(chain, MODELS[kind], PROMPTS, num_beams=beams) == alone


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_encoding_padded_on_either_side(side: str) -> None:
    """Right padding of the user is kept, its width included; left padding is moved to the right."""
    encoded = tiny_tokenizer()(PROMPTS, return_tensors="pt", padding="max_length", max_length=24, padding_side=side)
    prompts = read_prompts(tiny_tokenizer(), bart(), encoded)
    assert bool((prompts.mask[:, 1:] <= prompts.mask[:, :-1]).all())
    if side == "right":
        assert torch.equal(prompts.ids, encoded["input_ids"]) and torch.equal(prompts.mask, encoded["attention_mask"])
    assert texts("", bart, encoded) == texts("", bart, PROMPTS)


def test_an_empty_chain_equals_transformers() -> None:
    """A batch padded on the right gives the same ids in transformers."""
    encoded = tiny_tokenizer()(PROMPTS, return_tensors="pt", padding=True, padding_side="right")
    given = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    want = bart().generate(**given, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert texts("", bart, PROMPTS) == want.tolist()
