"""End tokens that `generate` is told: ensembles end where `generate` ends, as if the model stated these tokens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import logitkit
from ensembles import RESOURCES, TOKENIZERS
from logitkit.processors.alignment import AlignmentVocabulary, align
from logitkit.registry.laws import tiny_model, tiny_tokenizer

BEGIN, END, LETTER = 256, 257, 98
FAR_END = TOKENIZERS["far"].eos_token_id
METHODS = ["exact", "gac", "mined", "unite", "embedding"]


def bound(chain: str, ends: Any = END) -> Any:
    """Return a chain bound to the tiny model, whose configuration states these end tokens."""
    model = copy.copy(tiny_model())
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.eos_token_id = ends
    return logitkit.chain(chain).bind(
        model, tiny_tokenizer(), "a prompt", tokenizers={"far": TOKENIZERS["far"]}, far=RESOURCES["far"]
    )


def scored(call: Any, **told: Any) -> torch.Tensor:
    """Return the scores after the prompt, from flat scores."""
    call.settings_for(**told)
    scores: torch.Tensor = call.composite(call.inputs["input_ids"], torch.zeros(1, 272))
    return scores


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ends", [BEGIN, LETTER, [BEGIN, LETTER], [END, LETTER], [LETTER, 99]])
def test_told_ends_equal_configured_ends(method: str, ends: Any) -> None:
    """A used call that is told end tokens gives the scores of a call whose model states them."""
    chain = f"ensemble(models=['far'], align='{method}', weights=[0.3, 0.7])"
    call = bound(chain)
    before = scored(call)
    told = scored(call, eos_token_id=ends)
    torch.testing.assert_close(told, scored(bound(chain, ends)), rtol=0, atol=0)
    torch.testing.assert_close(scored(call), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["exact", "gac", "mined", "embedding"])
def test_the_helpers_end_goes_to_the_told_end(method: str) -> None:
    """By hand, with all weight on the helper: its end becomes the told end token, and a told letter keeps its text."""
    call = bound(f"ensemble(models=['far'], align='{method}', weights=[0.0, 1.0])")
    reader = call.composite.parts[0][1].helpers[0].read
    p = reader(call.inputs["input_ids"]).softmax(-1)
    main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    helper = AlignmentVocabulary.of(RESOURCES["far"], TOKENIZERS["far"])
    built = align(method, helper, main).translate(p)
    built /= built.sum()
    end = float(built[0, END])
    assert end > 0
    got = scored(call).softmax(-1)
    torch.testing.assert_close(got, built)
    for told in (BEGIN, LETTER):
        got = scored(call, eos_token_id=told).softmax(-1)
        want = built.clone()
        want[0, END], want[0, told] = 0.0, built[0, told] + end
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(scored(call, eos_token_id=None).softmax(-1), built)


def test_the_guard_ends_where_generate_ends() -> None:
    """CoRE keeps a row whose best token ends it: the told token, and no token where there is no end."""
    call = bound("core(models=['far'], guard=True, main_floor=0.0, topk=0)")
    scores = torch.zeros(1, 272)
    scores[0, LETTER] = 0.01

    def guarded(**told: Any) -> bool:
        call.settings_for(**told)
        return torch.equal(call.composite(call.inputs["input_ids"], scores), scores)

    assert not guarded()
    assert guarded(eos_token_id=LETTER) and not guarded(eos_token_id=None) and not guarded(eos_token_id=END)


def test_generate_stops_at_the_told_end() -> None:
    """With all weight on a helper that ends at once, the row ends at once, at the token that `generate` is told."""
    call = bound("ensemble(models=['far'], align='gac', weights=[0.0, 1.0])")
    helper = call.composite.parts[0][1].helpers[0]
    end_now = torch.full((1, helper.alignment.targets.shape[0]), -5.0).index_fill(1, torch.tensor([FAR_END]), 5.0)
    helper = type(helper)(name="far", read=lambda rows: end_now, alignment=helper.alignment, ends=helper.ends)
    call.composite.parts[0][1].helpers = (helper,)
    for told in (BEGIN, LETTER, END):
        output = call.generate(eos_token_id=told, max_new_tokens=4, do_sample=False)
        assert output[0, call.prompts.width :].tolist() == [told]
