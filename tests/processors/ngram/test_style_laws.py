"""Style injection in `generate`: every generation mode equals recomputation, and every rule keeps the laws."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from logitkit.processors.ngram import NgramTable
from logitkit.registry import Spec
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer

TEXT = "a prompt of text and the other prompt of a text, the other text of the prompt "
CHAINS = {
    "literal": "ngram_style('style', 0.5, 'literal', top=4)",
    "pmi": "ngram_style('style', 0.5, 'pmi', background='neutral')",
    "mixture": "ngram_style('style', 0.5, 'mixture')",
    "target": "ngram_style('style', 1.0, target_js=0.05)",
    "guarded": "ngram_style('style', 0.5, once=True, plausible=0.01, cap_bits=3.0)",
    "context": "ngram_context(0.5, 'mixture', once=True)",
}


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"num_return_sequences": 2}])
def test_every_way_of_generating(settings: dict[str, Any]) -> None:
    """Beam search, prompt lookup and several sequences equal a fresh processor applied to each row alone."""
    table = NgramTable.train([TEXT], tiny_tokenizer())
    chain = logitkit.chain("ngram_style('style', 0.5)")
    call = chain.bind(tiny_model(), tiny_tokenizer(), "a prompt", style=table)
    more = {"do_sample": True} if "num_return_sequences" in settings else {"do_sample": False}
    torch.manual_seed(0)
    got = call.ids(call.generate(max_new_tokens=10, **settings, **more))
    fresh = chain.bind(tiny_model(), tiny_tokenizer(), "a prompt", style=NgramTable.train([TEXT], tiny_tokenizer()))
    torch.manual_seed(0)
    processor = fresh.composite.parts[0][1]

    def one_by_one(ids: Tensor, scores: Tensor) -> Tensor:
        return torch.cat([processor(i[None], s[None]) for i, s in zip(ids, scores, strict=True)])

    again = tiny_model().generate(
        **fresh.inputs,
        logits_processor=[one_by_one],
        max_new_tokens=10,
        **settings,
        **more,
    )
    assert torch.equal(got, again)


def neutral_table(model: Any, tokenizer: Any) -> NgramTable:
    """Return the background table of rule pmi."""
    return NgramTable.train(["neither this nor that is of any style"], tokenizer)


def style_table(model: Any, tokenizer: Any) -> NgramTable:
    """Return the table of the style."""
    return NgramTable.train([TEXT], tokenizer)


def spec_of(name: str) -> Spec:
    """Return a Spec whose example uses one rule."""
    named = {"style": f"{__name__}:style_table", "neutral": f"{__name__}:neutral_table"}
    used = {key: maker for key, maker in named.items() if key in logitkit.chain(CHAINS[name]).table_names}
    return dataclasses.replace(
        logitkit.describe(CHAINS[name].partition("(")[0]),
        name=f"rule_{name}",
        example=f"rule_{name}({CHAINS[name].partition('(')[2]}",
        example_resources=used,
    )


@parametrize_with_laws([spec_of(name) for name in CHAINS])
def test_every_rule_keeps_the_laws(check: Callable[[], None]) -> None:
    """Every rule and option keeps the laws, in addition to the example of the Spec."""
    check()
