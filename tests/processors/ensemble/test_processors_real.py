"""Ensembles of real models with different tokenizers: SmolLM2-135M and Gemma-3-270M."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from foreign import RecomputeForeign
from logitkit import models
from logitkit.errors import DownloadError
from logitkit.processors.ensemble import Member
from logitkit.processors.tokens import vocabulary_of

PROMPTS = ["The old lighthouse keeper climbed the stairs one last", "Antidisestablishmentarianism is"]


@pytest.fixture(scope="module")
def gemma() -> tuple[Any, Any]:
    """Return Gemma-3-270M where it is cached; a test never downloads it."""
    try:
        models.path("gemma-3-270m")
    except DownloadError as error:
        pytest.skip(str(error))
    return models.load("gemma-3-270m")


def recomputed(call: Any, pair: Any) -> Any:
    """Return a reference reader that decodes, tokenizes and reads everything from scratch at each step."""
    model, tokenizer = pair
    source = vocabulary_of(call.model, call.tokenizer)

    def tokens(text: bytes) -> list[int]:
        return tokenizer(text.decode(), add_special_tokens=False)["input_ids"]

    own = [tokenizer(text)["input_ids"] for text in PROMPTS]
    return RecomputeForeign(model, own, call.prompts.ids, tokens, lambda token: source.token_bytes[token] or b"")


@pytest.mark.parametrize("mode", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_equals_recomputing_everything(smollm2: Any, gemma: Any, mode: dict[str, Any]) -> None:
    """In a padded batch, the logits of the helper are within 1e-3 of the reference, and the tokens are the same."""
    resources: dict[str, Any] = {"tokenizers": {"far": gemma[1]}, "far": gemma[0]}
    call = logitkit.chain("core(models=['far'], align='gac')").bind(*smollm2, PROMPTS, **resources)
    part = call.composite.parts[0][1]
    (member,) = part.helpers
    slow, worst = recomputed(call, gemma), []

    def both(input_ids: torch.Tensor) -> torch.Tensor:
        got, want = member.read(input_ids), slow(input_ids)
        worst.append(float((got - want).abs().max()))
        return want

    settings = {"max_new_tokens": 5, "do_sample": False, **mode}
    part.helpers = (Member(name="far", read=both, alignment=member.alignment),)
    want = call.generate(**settings)
    assert max(worst) < 1e-3
    part.helpers = (member,)
    assert torch.equal(call.generate(**settings), want)


def test_an_alignment_covers_shared_tokens(smollm2: Any, gemma: Any) -> None:
    """English words with and without a space, newlines, digits and parts of characters are aligned to themselves."""
    from logitkit.processors.alignment import AlignmentVocabulary, align

    helper, main = AlignmentVocabulary.of(*gemma), AlignmentVocabulary.of(*smollm2)
    alignment = align("exact", helper, main)
    for text in (b" the", b"the", b"\n", b"7", b" Paris", b"\xc3", b"(", b"The"):
        for token in helper.vocabulary.ids_of[text]:
            assert main.vocabulary.token_bytes[alignment.targets[token, 0]] == text and alignment.weights[token, 0] == 1
    assert alignment.targets[1, 0] == 2 and alignment.matrix.shape == (262144, 49152)
    assert alignment.coverage()["exact"] > 46000
