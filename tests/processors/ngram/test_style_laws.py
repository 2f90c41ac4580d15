"""Style injection in `generate`: every way equals recomputing, and every rule keeps the laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from logitkit.processors.ngram.table import NgramTable
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from logitkit.registry.spec import Spec

TEXT = "a prompt of text and the other prompt of a text, the other text of the prompt "
RULED = {
    "literal": "ngram_style('style', 0.5, 'literal', top=4)",
    "pmi": "ngram_style('style', 0.5, 'pmi', background='neutral')",
    "mixture": "ngram_style('style', 0.5, 'mixture')",
    "target": "ngram_style('style', 1.0, target_js=0.05)",
    "guarded": "ngram_style('style', 0.5, once=True, plausible=0.01, cap_bits=3.0)",
    "context": "ngram_context(0.5, 'mixture', once=True)",
}


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"num_return_sequences": 2}])
def test_every_way_of_generating(settings: dict[str, Any]) -> None:
    """Beams, prompt lookup and several sequences give what recomputing gives: greedy where that is what they mean."""
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


def tables(model: Any, tokenizer: Any) -> dict[str, NgramTable]:
    """For the laws."""
    return {
        "style": NgramTable.train([TEXT], tokenizer),
        "neutral": NgramTable.train(["neither this nor that is of any style"], tokenizer),
    }


def spec_of(name: str) -> Spec:
    """A spec whose example uses one rule."""
    kind = "context:NgramContext" if name == "context" else "style:NgramStyle"
    chain = RULED[name].replace("ngram_context", f"rule_{name}").replace("ngram_style", f"rule_{name}")
    return Spec(
        name=f"rule_{name}",
        summary="one rule",
        source="test",
        target=f"logitkit.processors.ngram.{kind}",
        example=chain,
        fixture=f"{__name__}:tables",
    )


@parametrize_with_laws([spec_of(name) for name in RULED])
def test_every_rule_keeps_the_laws(check: Callable[[], None]) -> None:
    """Not only the one of the Spec's example."""
    check()
