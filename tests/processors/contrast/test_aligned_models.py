"""Contrastive decoding and proxy tuning with models of another tokenizer, over an alignment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import hypothesis
import pytest
import torch
from hypothesis import strategies

import logitkit
from logitkit.errors import ModelError, NoEffectWarning, ParameterError
from logitkit.processors.alignment import AlignmentVocabulary, align
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.processors.contrast import contrastive, dexperts
from logitkit.processors.engine import AlignedStream
from logitkit.registry.laws import (
    check_modes,
    foreign_model,
    foreign_tokenizer,
    parametrize_with_laws,
    tiny_model,
    tiny_tokenizer,
)

CONTRASTIVE = "contrastive(amateur='foreign', beta=0.7, align='gac')"
PROXY = "dexperts(expert='foreign', antiexpert='other', align='exact')"


def aligned() -> tuple[AlignmentVocabulary, AlignmentVocabulary]:
    """Return the vocabularies of the foreign and of the tiny model."""
    foreign = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
    return foreign, AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())


def test_a_stream_is_translated_token_by_token() -> None:
    """Slow reference: every foreign token gives its probability to the main token of its bytes, or to none."""
    foreign, main = aligned()
    logits = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    got = AlignedStream(lambda rows: logits, align("exact", foreign, main))(torch.zeros(2, 1).long()).exp()
    alignment, p = align("exact", foreign, main), logits.softmax(-1)
    want = torch.zeros(2, 272)
    for token in range(300):
        for place, weight in enumerate(alignment.weights[token].tolist()):
            want[:, int(alignment.targets[token, place])] += weight * p[:, token]
    torch.testing.assert_close(got, want)
    letter, own = foreign_tokenizer().convert_tokens_to_ids("a"), tiny_tokenizer().convert_tokens_to_ids("a")
    torch.testing.assert_close(got[:, own], p[:, letter])


def bound(text: str, **resources: object) -> logitkit.Call:
    """Bind a chain to the tiny model with models of the foreign tokenizer."""
    tokenizers = {name: foreign_tokenizer() for name in ("foreign", "other")}
    return logitkit.chain(text).bind(
        tiny_model(), tiny_tokenizer(), ["a prompt of text"], tokenizers=tokenizers, resources=resources
    )


@torch.no_grad()
def test_scores_equal_the_formula_over_the_translated_model() -> None:
    """The foreign model reads the text with its own tokens; its law is translated and contrasted."""
    call = bound(CONTRASTIVE, foreign=foreign_model())
    rows = call.inputs["input_ids"]
    scores = tiny_model()(rows).logits[:, -1].float()
    own = torch.tensor([foreign_tokenizer()("a prompt of text")["input_ids"]])
    foreign, main = aligned()
    law = foreign_model()(own).logits[:, -1].float().softmax(-1)
    amateur = align("gac", foreign, main).translate(law).log()
    torch.testing.assert_close(
        call.composite(rows, scores), contrastive(scores, amateur, beta=0.7), rtol=1e-4, atol=1e-4
    )


def test_proxy_tuning_by_one_model_twice_changes_nothing() -> None:
    """The difference of a model and itself is 0 for every aligned token, and for every other token too."""
    call = bound(PROXY, foreign=foreign_model(), other=foreign_model())
    scores = torch.randn(1, 272, generator=torch.Generator().manual_seed(1))
    got = call.composite(call.inputs["input_ids"], scores)
    torch.testing.assert_close(got, scores.log_softmax(-1))
    base = torch.tensor([[0.0, 1.0, 2.0]])
    expert, anti = torch.tensor([[0.0, -math.inf, 1.0]]), torch.tensor([[0.0, -math.inf, -math.inf]])
    assert bool(dexperts(base, expert, anti).isfinite().all()), "tokens that no model reaches keep their scores"


def test_models_with_the_same_tokenizer_are_read_as_they_are() -> None:
    """An alignment changes nothing for them, bit for bit."""
    scores = torch.randn(1, 272, generator=torch.Generator().manual_seed(1))
    calls = [
        logitkit.chain(f"contrastive(amateur='small'{further})").bind(
            tiny_model(), tiny_tokenizer(), "ab", tokenizers={"small": tiny_tokenizer()}, small=tiny_model(1)
        )
        for further in ("", ", align='gac'")
    ]
    results = [call.composite(call.inputs["input_ids"], scores) for call in calls]
    assert torch.equal(*results)


def over_bytes(text: str, *, prompts: object = "ab", **resources: object) -> logitkit.Call:
    """Bind a chain to the tiny model over bytes, with other models over tokens."""
    tokenizers = {"foreign": foreign_tokenizer(), "other": tiny_tokenizer()}
    main = ByteModel(tiny_model(), tiny_tokenizer())
    known = {name: value for name, value in tokenizers.items() if name in resources}
    return logitkit.chain(text).bind(main, byte_tokenizer(), prompts, tokenizers=known, resources=resources)


def test_over_bytes_the_formula_holds_for_the_next_byte() -> None:
    """Slow reference: the formulas over the next-byte distributions of byte models that were made by hand."""
    foreign, other = ByteModel(foreign_model(), foreign_tokenizer()), ByteModel(tiny_model(1), tiny_tokenizer())
    call = over_bytes("contrastive(amateur='foreign', beta=0.7, align='bytes')", foreign=foreign_model())
    proxy = over_bytes(
        "dexperts(expert='foreign', antiexpert='other', align='bytes')", foreign=foreign_model(), other=tiny_model(1)
    )
    for text in (b"ab", b"abc ", b"ab\xc3"):
        scores, rows = call.model.logp([text]).float(), torch.tensor([list(text)])
        second, third = foreign.logp([text]).float(), other.logp([text]).float()
        want = contrastive(scores, second, beta=0.7)
        torch.testing.assert_close(call.composite(rows, scores), want, rtol=1e-4, atol=1e-4)
        want = dexperts(scores, second, third)
        torch.testing.assert_close(proxy.composite(rows, scores), want, rtol=1e-4, atol=1e-4)


@hypothesis.given(strategies.binary(max_size=4), strategies.floats(0, 3))
@hypothesis.settings(max_examples=15, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_over_bytes_two_equal_experts_change_nothing(text: bytes, alpha: float) -> None:
    """Whatever the text and the strength, the scores are those of the generating model, as far as they are possible."""
    with pytest.warns(NoEffectWarning, match="expert and antiexpert are one model"):
        call = over_bytes(
            f"dexperts(expert='foreign', antiexpert='foreign', alpha={alpha + 0.1}, align='bytes')",
            foreign=foreign_model(),
        )
    scores = call.model.logp([b"ab" + text]).float()
    hypothesis.assume(bool((scores > -torch.inf).any()))
    got = call.composite(torch.tensor([list(b"ab" + text)]), scores)
    torch.testing.assert_close(got, scores.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_over_bytes_byte_models_and_neutral_values() -> None:
    """A byte model is read as it is, the generating model is named as such, and neutral values read nothing."""
    made = ByteModel(foreign_model(), foreign_tokenizer())
    calls = [
        logitkit.chain("contrastive(amateur='weak', align='bytes')").bind(
            ByteModel(tiny_model(), tiny_tokenizer()), byte_tokenizer(), "ab", weak=weak, tokenizers=tokenizers
        )
        for weak, tokenizers in ((made, {}), (foreign_model(), {"weak": foreign_tokenizer()}))
    ]
    texts = [call.texts(call.generate(max_new_tokens=5, do_sample=False)) for call in calls]
    assert texts[0] == texts[1] and all(call.trace.forwards["weak"] for call in calls)
    with pytest.warns(NoEffectWarning, match="contrastive compares the model with itself"):
        over_bytes("contrastive(amateur='other', align='bytes')", other=tiny_model())
    call = over_bytes("contrastive(amateur='other', beta=0.0, align='bytes')", other=tiny_model(1))
    scores = torch.zeros(1, 257)
    assert call.composite(call.inputs["input_ids"], scores) is scores and not call.trace.forwards["other"]


def test_mistakes_are_refused() -> None:
    """Another tokenizer without align, an unknown method, and a window beside an alignment."""
    with pytest.raises(ModelError, match="contrastive: "):
        bound("contrastive(amateur='foreign')", foreign=foreign_model())
    with pytest.raises(ParameterError, match="contrastive: align must be one of 'exact', 'mined', 'gac', 'embedding'"):
        logitkit.chain("contrastive(amateur='foreign', align='unite')")
    with pytest.raises(ParameterError, match="contrastive: window must be None where align is given, got 1"):
        bound("contrastive(amateur='foreign', align='gac', window=1)", foreign=foreign_model())
    for chain in (CONTRASTIVE.replace("gac", "bytes"), PROXY.replace("exact", "bytes")):
        named = {"foreign": foreign_model()} | ({"other": foreign_model(1)} if "other" in chain else {})
        with pytest.raises(ModelError, match=r"(contrastive|dexperts): the generating model must be a ByteModel, got"):
            bound(chain, **named)
    with pytest.raises(ModelError, match="contrastive: tokenizer must be the byte tokenizer, got a tokenizer of"):
        logitkit.chain(CONTRASTIVE.replace("gac", "bytes")).bind(
            ByteModel(tiny_model(), tiny_tokenizer()), tiny_tokenizer(), "ab", foreign=tiny_model(1)
        )


OVER_BYTES = {"tokens": "the generating model must be a ByteModel"}
VARIANTS = [
    dataclasses.replace(
        logitkit.describe("contrastive"),
        name="contrastive_aligned",
        example="contrastive_aligned(amateur='other', beta=0.7, align='gac')",
        example_resources={"other": "foreign_model"},
    ),
    dataclasses.replace(
        logitkit.describe("dexperts"),
        name="dexperts_aligned",
        example="dexperts_aligned(expert='other', antiexpert='third', align='gac')",
        example_resources={"other": "foreign_model", "third": "model"},
    ),
    dataclasses.replace(
        logitkit.describe("contrastive"),
        name="contrastive_bytes",
        example="contrastive_bytes(amateur='other', beta=0.7, align='bytes')",
        example_resources={"other": "byte_model"},
        modes=OVER_BYTES,
    ),
    dataclasses.replace(
        logitkit.describe("dexperts"),
        name="dexperts_bytes",
        example="dexperts_bytes(expert='other', antiexpert='third', align='bytes')",
        example_resources={"other": "byte_model", "third": "byte_model"},
        modes=OVER_BYTES,
    ),
]


@parametrize_with_laws(VARIANTS[:3])  # dexperts reads byte models as contrastive does
def test_aligned_steps_keep_the_laws(check: Callable[[], None]) -> None:
    """Both keep every law of a processor."""
    check()


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.name)
def test_aligned_steps_are_right_in_the_modes(spec: logitkit.Spec) -> None:
    """Padded batches, beams and assisted decoding equal recomputation from scratch."""
    results = check_modes(spec, ["greedy", "beams", "left_padding", "assisted"])
    assert all(result.right for result in results), results
