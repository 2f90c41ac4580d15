"""Ensembles of byte models: by hand, and whole texts by enumeration."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.byte_level import (
    ByteEnsemble,
    ByteModel,
    Evidence,
    byte_tokenizer,
    rows_of,
)
from logitkit.registry.laws import check_processor, tiny_model, tiny_tokenizer, wide_properties
from logitkit.registry.laws.wide_properties import LONG
from reference.byte_distributions import SlowBytes, tiny

HALF = torch.tensor([0.5, 0.5]).log()


def bound(chain: str, prompts: Any, model: Any = None, **resources: Any) -> Any:
    """Return a chain bound to a tiny byte model."""
    tokenizers = resources.pop("tokenizers", None)
    model = model or ByteModel(*tiny(3))
    return logitkit.chain(chain).bind(model, byte_tokenizer(), prompts, tokenizers=tokenizers, **resources)


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.8, 0.2]])
def test_the_sequence_mixture_is_one_model_writing_the_whole_text(weights: list[float]) -> None:
    """The probability of every text of up to 3 bytes is the weighted mean of the models' probabilities.

    The mean at each byte has no such property. Two tokenizers; distributions by enumeration of covers.
    """
    ours, theirs = tiny(3), tiny(5)
    whole = [SlowBytes(*pair).texts(b"ab", 3) for pair in (ours, theirs)]
    want = {
        text: sum(w * probability[text] for w, probability in zip(weights, whole, strict=True)) for text in whole[0]
    }
    worst = {}
    for fuse in ("sequence", "mixture"):
        model = ByteModel(*ours)
        call = bound(
            f"byte_ensemble(models=['b'], weights={weights}, fuse='{fuse}')", "ab", model, b=ByteModel(*theirs)
        )
        got = {}
        for text in want:
            total, ids = 0.0, list(b"ab")
            for letter in [256 if byte == 255 else byte for byte in text]:
                row = torch.tensor([ids])
                total += float(call.composite(row, model(input_ids=row).logits[:, -1])[0, letter])
                ids.append(letter)
            got[text] = torch.tensor(total).exp().item()
        worst[fuse] = max(abs(got[text] - p) for text, p in want.items())
        assert sum(got.values()) == pytest.approx(1, abs=1e-4)
    assert worst["sequence"] < 1e-5 < 1e-3 < worst["mixture"]


@pytest.mark.parametrize(
    ("fuse", "lengths"),
    [("product", LONG), ("sequence", (41, 150)), pytest.param("sequence", LONG, marks=pytest.mark.long)],
)
def test_the_laws_hold_for_every_fusion(fuse: str, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws hold for each value of ``fuse`` beside the mixture, which the example of the Spec has.

    The evidence of a sequence mixture is read byte by byte, so that the rows of the law for long rows take half a
    minute.
    """
    monkeypatch.setattr(wide_properties, "LONG", lengths)
    spec = dataclasses.replace(
        logitkit.describe("byte_ensemble"), example=f"byte_ensemble(models=['other'], fuse='{fuse}')"
    )
    assert not check_processor(spec).failures


@pytest.mark.parametrize("fuse", ["mixture", "product", "sequence"])
def test_without_other_models_scores_are_unchanged(fuse: str) -> None:
    """Without helpers, with the model itself as helper, or with weight 0, the same scores are returned."""
    model = ByteModel(*tiny(3))
    scores = torch.randn(1, 257)
    row = torch.tensor([list(b"ab")])
    for models, weights, resources in (
        ([], None, {}),
        (["b"], [0.3, 0.7], {"b": model}),
        (["b"], None, {"b": model.model}),
        (["b"], None, {"b": ByteModel(model.model, model.tree.tokenizer)}),
        (["b"], [1.0, 0.0], {"b": ByteModel(*tiny(5))}),
    ):
        call = bound(f"byte_ensemble(models={models}, weights={weights}, fuse='{fuse}')", "ab", model, **resources)
        assert call.composite(row, scores) is scores


def test_a_plain_model_is_wrapped() -> None:
    """A model over tokens with its tokenizer is the same helper as its `ByteModel`."""
    model, tokenizer = tiny(5)
    chain = "byte_ensemble(models=['b'], weights=[0.0, 1.0])"
    row = torch.tensor([list(b"ab")])
    scores = ByteModel(*tiny(3)).logp([b"ab"])
    got = bound(chain, "ab", b=model, tokenizers={"b": tokenizer}).composite(row, scores)
    want = bound(chain, "ab", b=ByteModel(model, tokenizer)).composite(row, scores)
    assert torch.equal(got, want)
    torch.testing.assert_close(got, ByteModel(model, tokenizer).logp([b"ab"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fuse", ["mixture", "product", "sequence"])
@pytest.mark.parametrize("mode", [{"do_sample": False}, {"do_sample": False, "num_beams": 2}])
def test_a_batch_is_each_alone(fuse: str, mode: dict[str, Any]) -> None:
    """Texts of left-padded prompts, greedy and with beams, are those of each prompt alone in a new call."""
    prompts = ["ab", "b a ab"]
    chain = f"byte_ensemble(models=['b'], fuse='{fuse}')"
    settings = {"max_new_tokens": 5, **mode}
    call = bound(chain, prompts, b=ByteModel(*tiny(5)))
    together = call.texts(call.generate(**settings))
    alone = [bound(chain, text, b=ByteModel(*tiny(5))) for text in prompts]
    assert together == [call.texts(call.generate(**settings))[0] for call in alone]


def test_the_trace_records_the_weights() -> None:
    """The recorded weight of the generating model in a sequence mixture starts at its given weight and changes."""
    call = logitkit.chain("byte_ensemble(models=['b'], weights=[0.25, 0.75], fuse='sequence')").bind(
        ByteModel(*tiny(3)), byte_tokenizer(), "ab", trace=True, b=ByteModel(*tiny(5))
    )
    call.generate(max_new_tokens=3, min_new_tokens=3, do_sample=False)
    recorded = [step.notes["weight_main"] for step in call.trace.steps]
    assert recorded[0] == pytest.approx(0.25) and len(set(recorded)) == 3


def test_refusals() -> None:
    """A model or tokenizer over tokens, weights that do not fit and an unknown fusion are named errors."""
    chain = logitkit.chain("byte_ensemble(models=[])")
    with pytest.raises(ModelError, match=r"must be a ByteModel, got LlamaForCausalLM; bind to ByteModel\("):
        chain.bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModelError, match=r"tokenizer must be the byte tokenizer, .*byte_tokenizer\(\)"):
        chain.bind(ByteModel(*tiny(3)), tiny_tokenizer(), "ab")
    for weights in ("[1.0]", "[1.0, -1.0]", "[0.0, 0.0]"):
        with pytest.raises(ParameterError, match="weights must be 2 finite numbers >= 0"):
            bound(f"byte_ensemble(models=['b'], weights={weights})", "ab", b=ByteModel(*tiny(5)))
    with pytest.raises(ParameterError, match="fuse must be one of 'mixture', 'product', 'sequence', got 'mean'"):
        bound("byte_ensemble(models=[], fuse='mean')", "ab")
    with pytest.raises(ParameterError, match="evidence must be given"):
        ByteEnsemble(fuse="sequence", helpers=[lambda ids: ids])
    with pytest.raises(ModelError, match="cannot be pickled"):
        pickle.dumps(Evidence([ByteModel(*tiny(3))], bound("byte_ensemble(models=[])", "ab").prompts))


def test_a_byte_costs_one_forward_of_each_model() -> None:
    """In a sequence mixture too, a byte costs one forward: distributions before the last byte are cached."""
    main, other = ByteModel(*tiny(3)), ByteModel(*tiny(5))
    call = bound("byte_ensemble(models=['b'], fuse='sequence')", "ab ab", main, b=other)
    main.logp([b"ab ab"]), other.logp([b"ab ab"])
    before = main.forwards, other.forwards
    call.generate(max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert main.forwards - before[0] <= 7 and other.forwards - before[1] <= 7


def test_rows_of_empty_text() -> None:
    """The ensemble continues an empty prompt, which is a row with the begin id."""
    call = bound("byte_ensemble(models=['b'], fuse='sequence')", rows_of([b""]), b=ByteModel(*tiny(5)))
    assert call.generate(max_new_tokens=3, do_sample=False).shape[1] <= 4
