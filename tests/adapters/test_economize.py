"""Chains under the decoding loops of economize: drafts and early exits give the tokens of plain `generate`."""

from __future__ import annotations

import copy
from typing import Any

import economize
import pytest
import torch
from economize.techniques.early_exit import EarlyExitConfig
from economize.techniques.lookup import LookupConfig
from engine_prompts import PROMPTS

import logitkit
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer

CHAINS = [
    "",
    "ngram_style(table='style', weight=0.3)",
    "ngram_context(weight=0.3)",
    "repetition_penalty(1.3) | no_repeat_ngram(3)",
    "frequency_penalty(0.7) | dry()",
    "cfg(scale=2.0)",
    "contrastive(amateur='other') | top_k(20)",
    "cascade(large='other', rule='chow', alpha=0.3)",
]


def techniques() -> dict[str, Any]:
    """Return drafts from the text itself, and drafts of half of the layers."""
    return {"lookup": LookupConfig(max_ngram=2), "early_exit": EarlyExitConfig(exit_layer=1)}


@pytest.mark.parametrize("technique", ["lookup", "early_exit"])
@pytest.mark.parametrize("chain", CHAINS)
def test_the_tokens_are_those_of_generate(chain: str, technique: str) -> None:
    """A prompt alone, and all of them in one padded batch; without a chain, some drafts are accepted."""
    base, tokenizer = copy.deepcopy(tiny_model()), tiny_tokenizer()
    table = NgramTable.train(["the text of a prompt", "one two three"], tokenizer)
    objects = {name: thing for name, thing in (("style", table), ("other", tiny_model(1))) if f"'{name}'" in chain}
    given: dict[str, Any] = {"resources": objects, "tokenizers": {"other": tokenizer} if "other" in objects else {}}
    decoding = economize.DecodeConfig(cycle_length=5)
    fast = economize.apply(base, techniques()[technique], decoding=decoding)
    accepted: list[float] = []
    for prompts in (PROMPTS[0], PROMPTS):
        call = logitkit.chain(chain).bind(base, tokenizer, prompts, **given)
        settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
        want = base.generate(**call.inputs, logits_processor=call.processors, **settings)
        got = fast.generate(
            call.inputs["input_ids"],
            attention_mask=call.inputs["attention_mask"],
            logits_processor=call.processors,
            on_results=lambda results: accepted.extend(result.mean_accepted for result in results),
            **settings,
        )
        assert torch.equal(got, want)
    assert chain or max(accepted) > 0
