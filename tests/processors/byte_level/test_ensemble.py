"""Ensembles of byte laws: by hand, and whole texts by enumeration."""

from __future__ import annotations

import dataclasses
import pickle
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import logitkit
from logitkit.errors import LogitkitError, ModelError, ParameterError, PromptError
from logitkit.processors.byte_level import (
    ByteEnsemble,
    ByteModel,
    Evidence,
    byte_tokenizer,
    fuse_distributions,
    rows_of,
)
from logitkit.registry.laws import check_processor, tiny_model, tiny_tokenizer
from reference.byte_distributions import SlowBytes, tiny

HALF = torch.tensor([0.5, 0.5]).log()


def bound(chain: str, prompts: Any, model: Any = None, **resources: Any) -> Any:
    """A call on the tiny byte model 3."""
    tokenizers = resources.pop("tokenizers", None)
    model = model or ByteModel(*tiny(3))
    return logitkit.chain(chain).bind(model, byte_tokenizer(), prompts, tokenizers=tokenizers, **resources)


def test_worked_example() -> None:
    """By hand: the mean, the geometric mean, and the mean after one model has found the text 3 times likelier."""
    laws = torch.tensor([[[0.5, 0.5, 0.0]], [[0.25, 0.5, 0.25]]]).log()
    torch.testing.assert_close(fuse_distributions(laws, HALF).exp(), torch.tensor([[0.375, 0.5, 0.125]]))
    root = torch.tensor([0.125**0.5, 0.5, 0.0])
    torch.testing.assert_close(fuse_distributions(laws, HALF, "product").exp(), (root / root.sum())[None])
    evidence = torch.tensor([[3.0], [1.0]]).log()  # weights 3/4 and 1/4
    got = fuse_distributions(laws, HALF[:, None] + evidence, "sequence").exp()
    torch.testing.assert_close(got, torch.tensor([[0.4375, 0.5, 0.0625]]))


def test_a_model_without_weight_forbids_nothing() -> None:
    """Weight 0 is no opinion, in a product too; where nothing is left the main law stands."""
    laws = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]]).log()
    alone = torch.tensor([1.0, 0.0]).log()
    torch.testing.assert_close(fuse_distributions(laws, alone, "product"), laws[0])
    torch.testing.assert_close(fuse_distributions(laws, alone), laws[0])
    apart = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
    torch.testing.assert_close(fuse_distributions(apart, HALF, "product"), apart[0])
    lost = torch.full((2, 1), -torch.inf)
    torch.testing.assert_close(fuse_distributions(laws, lost, "sequence"), fuse_distributions(laws, HALF))


@given(seed=st.integers(0, 999), models=st.integers(1, 4), how=st.sampled_from(["mixture", "product", "sequence"]))
def test_fusion_is_a_law_between_its_members(seed: int, models: int, how: Any) -> None:
    """It sums to 1, does not depend on the scale of the weights, and is the law itself where all agree."""
    generator = torch.Generator().manual_seed(seed)
    laws = torch.randn(models, 2, 5, generator=generator).log_softmax(-1)
    laws[:, :, 0] = -torch.inf
    logw = torch.randn(models, generator=generator)
    got = fuse_distributions(laws, logw, how)
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(2))
    torch.testing.assert_close(got, fuse_distributions(laws, logw + 3, how))
    same = laws[:1].expand(models, -1, -1)
    torch.testing.assert_close(fuse_distributions(same, logw, how), same[0].log_softmax(-1))
    if how != "product":
        assert bool((got.exp() <= laws.log_softmax(-1).exp().amax(0) + 1e-6).all())


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.8, 0.2]])
def test_the_sequence_mixture_is_one_model_writing_the_whole_text(weights: list[float]) -> None:
    """Every text of up to 3 bytes: its probability is the weighted mean of what each model gives to it whole.

    The mean at each byte is not. Two tokenizers; laws by enumeration of covers.
    """
    ours, theirs = tiny(3), tiny(5)
    whole = [SlowBytes(*pair).texts(b"ab", 3) for pair in (ours, theirs)]
    want = {text: sum(w * law[text] for w, law in zip(weights, whole, strict=True)) for text in whole[0]}
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


def test_evidence_is_the_sum_of_the_laws() -> None:
    """By recomputation; the same for a fresh instance, out of order, after rewinds and for rows that have ended."""
    models = [ByteModel(*tiny(3)), ByteModel(*tiny(5))]
    call = bound("byte_ensemble(models=[])", ["ab", "b a ab"], models[0])
    evidence = Evidence(models, call.prompts)
    ids = torch.cat([call.prompts.ids, torch.tensor([[97, 32, 98], [98, 98, 97]])], dim=1)
    want = torch.zeros(2, 2)
    for m, model in enumerate(models):
        for row, prompt in enumerate((b"ab", b"b a ab")):
            tail = bytes(ids[row, 6:].tolist())
            want[m, row] = sum(float(model.logp([prompt + tail[:k]])[0, tail[k]]) for k in range(3))
    for length, order in ((9, [0, 1]), (7, [0, 1]), (9, [1, 0]), (8, [1]), (9, [0])):
        got = evidence(ids[order, :length])
        fresh = Evidence(models, call.prompts)(ids[order, :length])
        torch.testing.assert_close(got, fresh, rtol=0, atol=1e-9)
        if length == 9:
            torch.testing.assert_close(got.float(), want[:, order])
    assert not evidence(torch.cat([ids, torch.full((2, 1), 256)], dim=1)).any()
    with pytest.raises(PromptError):
        evidence(ids + 1)


@pytest.mark.parametrize("fuse", ["mixture", "product", "sequence"])
def test_the_laws_hold_for_every_way(fuse: str) -> None:
    """Not only for the example of the Spec."""
    spec = dataclasses.replace(
        logitkit.describe("byte_ensemble"), example=f"byte_ensemble(models=['other'], fuse='{fuse}')"
    )
    assert not check_processor(spec).failures


@pytest.mark.parametrize("fuse", ["mixture", "product", "sequence"])
def test_nobody_else_is_nothing_done(fuse: str) -> None:
    """No helpers, the model itself under any name, and weight 0: the very scores."""
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
    """A model over tokens with its tokenizer is the same helper as its ByteModel."""
    model, tokenizer = tiny(5)
    chain = "byte_ensemble(models=['b'], weights=[0.0, 1.0])"
    row = torch.tensor([list(b"ab")])
    scores = ByteModel(*tiny(3)).logp([b"ab"])
    got = bound(chain, "ab", b=model, tokenizers={"b": tokenizer}).composite(row, scores)
    want = bound(chain, "ab", b=ByteModel(model, tokenizer)).composite(row, scores)
    assert torch.equal(got, want)
    torch.testing.assert_close(got, ByteModel(model, tokenizer).logp([b"ab"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fuse", ["mixture", "product", "sequence"])
@pytest.mark.parametrize("way", [{"do_sample": False}, {"do_sample": False, "num_beams": 2}])
def test_a_batch_is_each_alone(fuse: str, way: dict[str, Any]) -> None:
    """Left-padded prompts, greedy and beams: the texts of new calls alone."""
    prompts = ["ab", "b a ab"]
    chain = f"byte_ensemble(models=['b'], fuse='{fuse}')"
    settings = {"max_new_tokens": 5, **way}
    call = bound(chain, prompts, b=ByteModel(*tiny(5)))
    together = call.texts(call.generate(**settings))
    alone = [bound(chain, text, b=ByteModel(*tiny(5))) for text in prompts]
    assert together == [one.texts(one.generate(**settings))[0] for one in alone]


def test_the_trace_tells_the_weights() -> None:
    """The share of the generating model in a sequence mixture, step by step: it starts at its weight."""
    call = logitkit.chain("byte_ensemble(models=['b'], weights=[0.25, 0.75], fuse='sequence')").bind(
        ByteModel(*tiny(3)), byte_tokenizer(), "ab", trace=True, b=ByteModel(*tiny(5))
    )
    call.generate(max_new_tokens=3, min_new_tokens=3, do_sample=False)
    told = [step.notes["weight_main"] for step in call.trace.steps]
    assert told[0] == pytest.approx(0.25) and len(set(told)) == 3


def test_refusals() -> None:
    """A model over tokens, the tokenizer of tokens, weights that do not fit, an unknown way."""
    chain = logitkit.chain("byte_ensemble(models=[])")
    with pytest.raises(ModelError, match=r"must be a ByteModel, got LlamaForCausalLM; bind to ByteModel\("):
        chain.bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModelError, match=r"tokenizer must be the byte model's.*byte_tokenizer\(\)"):
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
    """In a sequence mixture too: the laws before the last byte are remembered."""
    main, other = ByteModel(*tiny(3)), ByteModel(*tiny(5))
    call = bound("byte_ensemble(models=['b'], fuse='sequence')", "ab ab", main, b=other)
    main.logp([b"ab ab"]), other.logp([b"ab ab"])
    before = main.forwards, other.forwards
    call.generate(max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert main.forwards - before[0] <= 7 and other.forwards - before[1] <= 7


def test_rows_of_empty_text() -> None:
    """An empty prompt is a row with a begin; the ensemble writes from there."""
    call = bound("byte_ensemble(models=['b'], fuse='sequence')", rows_of([b""]), b=ByteModel(*tiny(5)))
    assert call.generate(max_new_tokens=3, do_sample=False).shape[1] <= 4


@pytest.mark.parametrize(("fuse", "named"), [("arithmetic", "mixture"), ("geometric", "product")])
def test_bytes_are_one_more_alignment(fuse: str, named: str) -> None:
    """``ensemble(align='bytes')`` is the byte ensemble under its other name; ``core`` takes it too."""
    main, helper, tokenizer = ByteModel(tiny_model(0), tiny_tokenizer()), tiny_model(1), tiny_tokenizer()
    prompts = ["ab a", "xyz"]

    def scores(chain: str) -> torch.Tensor:
        call = logitkit.chain(chain).bind(main, byte_tokenizer(), prompts, b=helper, tokenizers={"b": tokenizer})
        return call.composite(call.prompts.ids, main(call.prompts.ids).logits[:, -1])

    want = scores(f"byte_ensemble(models=['b'], weights=[1.0, 3.0], fuse='{named}')")
    got = scores(f"ensemble(models=['b'], align='bytes', weights=[1.0, 3.0], fuse='{fuse}')")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert bool(torch.isfinite(scores("core(models=['b'], align='bytes', topk=0)")).any(-1).all())


def test_bytes_align_all_or_none() -> None:
    """And need a generating model over bytes."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for chain, error in (
        ("ensemble(models=['b'], align='bytes')", "ensemble: the generating model must be a ByteModel, got Llama"),
        ("core(models=['b', 'c'], align=['bytes', 'gac'])", "'bytes' for all models or for none"),
        ("ensemble(models=['b'], align='bytes', prompts={'b': 'x'})", "left out with align='bytes'"),
    ):
        with pytest.raises(LogitkitError, match=re.escape(error)):
            logitkit.chain(chain).bind(model, tokenizer, "a", b=model, c=model, tokenizers={"b": tokenizer})


def test_deepen_needs_embeddings() -> None:
    """A model over bytes has none: one named error before any model runs."""
    main = ByteModel(tiny_model(), tiny_tokenizer())
    with pytest.raises(ModelError, match=r"deepen: every model must have input embeddings, got a ByteModel"):
        logitkit.chain("deepen(models=['b'])").bind(
            main,
            byte_tokenizer(),
            "a",
            b=ByteModel(tiny_model(1), tiny_tokenizer()),
            tokenizers={"b": byte_tokenizer()},
        )
