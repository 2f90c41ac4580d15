"""Ensembles over tiny models: every alignment against a dense reference, in several decoding modes."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

from ensembles import PROMPTS, RESOURCES, TOKENIZERS, bound, decode
from foreign import RecomputeForeign
from logitkit.processors.ensemble import (
    PRESETS,
    AlignmentVocabulary,
    Ensemble,
    Member,
    align,
    core,
    fuse,
    member_probabilities,
)
from logitkit.processors.tokens import Retokenizer, Vocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
}


class Recomputed(LogitsProcessor):
    """A reference that reads each row from scratch: text, own tokens, no cache, and the dense alignment matrix."""

    def __init__(self, call: Any, names: list[str], method: str, combine: Any, topk: int = 0) -> None:
        self.combine, self.topk = combine, topk
        vocabulary = Vocabulary.of(tiny_tokenizer(), 272)
        self.streams, self.maps = [], []
        for name in names:
            model, tokenizer = RESOURCES[name], TOKENIZERS[name]
            fresh = Retokenizer(vocabulary, tokenizer, Vocabulary.of(tokenizer))
            own = [tokenizer(text)["input_ids"] for text in PROMPTS]
            slow = RecomputeForeign(
                model,
                own,
                call.prompts.ids,
                lambda text, f=fresh: f.of_bytes([text])[0],
                lambda t: vocabulary.token_bytes[t] or b"",
            )
            self.streams.append(slow)
            sides = AlignmentVocabulary.of(model, tokenizer), AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
            self.maps.append(align(method, *sides).matrix.to_dense())

    def top(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax of the ``topk`` largest logits."""
        if self.topk:
            least = logits.sort(-1, descending=True).values[:, self.topk - 1 : self.topk]
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits.softmax(-1)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        helpers = [self.top(stream(input_ids)) @ dense for stream, dense in zip(self.streams, self.maps, strict=True)]
        return self.combine(self.top(scores), helpers).log()


def mean(main: torch.Tensor, helpers: list[torch.Tensor]) -> torch.Tensor:
    """Return the normalised sum of the distributions."""
    mixed = main + sum(helpers)
    return mixed / mixed.sum(-1, keepdim=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["exact", "mined", "gac", "embedding"])
def test_the_ensemble_equals_recomputation(method: str, mode: str) -> None:
    """With two helpers, two tokenizers and prompts of three lengths, the tokens are those of the reference."""
    call = bound(f"ensemble(models=['far', 'piece'], align={method!r})")
    want = decode(bound(""), logits_processor=[Recomputed(call, ["far", "piece"], method, mean)], **MODES[mode])
    assert torch.equal(decode(call, **MODES[mode]), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", ["linear", "rbf", "power", "reciprocal", "sigmoid"])
def test_core_equals_recomputation(kernel: str, mode: str) -> None:
    """With each kernel, the tokens of CoRE are those of the reference."""
    call = bound(f"core(models=['far', 'piece'], align='gac', kernel={kernel!r}, guard=False)")
    reference = Recomputed(call, ["far", "piece"], "gac", lambda p, q: core(p, q, kernel=kernel).exp(), topk=10)
    want = decode(bound(""), logits_processor=[reference], **MODES[mode])
    assert torch.equal(decode(call, **MODES[mode]), want)


CORE_SETTINGS: dict[str, dict[str, Any]] = {
    "core(models=['far', 'piece'], guard=False)": {},
    "core(models=['far', 'piece'], kernel='power', sharpness=3.0, main_floor=0.2, topk=0, guard=False)": {
        "kernel": "power",
        "sharpness": 3.0,
        "main_floor": 0.2,
    },
    "core(models=['far'], preset='choice')": {"variant": PRESETS["choice"].variant},
    "core(models=['far'], preset='published')": {"main_floor": 0.0, "variant": PRESETS["published"].variant},
}


@pytest.mark.parametrize("chain", CORE_SETTINGS)
def test_the_processor_returns_the_pure_function_core(chain: str) -> None:
    """The scores of `Core` equal `core` of the members' probabilities, bit for bit."""
    call = bound(chain)
    ids, scores = call.inputs["input_ids"], 3 * torch.randn(3, 272)
    processor = call.composite.parts[0][1]
    main, helpers = member_probabilities(ids, scores, processor.helpers, topk=processor.topk)
    assert torch.equal(processor(ids, scores), core(main, helpers, **CORE_SETTINGS[chain]))


@pytest.mark.parametrize("how", ["arithmetic", "geometric", "max"])
def test_the_processor_returns_the_pure_function_fuse(how: Any) -> None:
    """The scores of `Ensemble` equal `fuse` of the members' probabilities, bit for bit."""
    call = bound(f"ensemble(models=['far', 'piece'], align='gac', weights=[1.0, 2.0, 3.0], fuse={how!r})")
    ids, scores = call.inputs["input_ids"], 3 * torch.randn(3, 272)
    processor = call.composite.parts[0][1]
    main, helpers = member_probabilities(ids, scores, processor.helpers)
    want = fuse(main, helpers, [1.0, 2.0, 3.0], how, processor.reachable(272))
    assert torch.equal(processor(ids, scores), want)


@pytest.mark.parametrize("mode", MODES)
def test_unite_with_its_whole_vocabulary_is_a_softmax_over_all(mode: str) -> None:
    """With every token in the union, the logit of a byte is the helper's own logit of that byte."""
    call = bound("ensemble(models=['far'], align='unite', topk=300)")

    def combine(p: torch.Tensor, _: Any) -> torch.Tensor:
        return p

    reference = Recomputed(call, ["far"], "exact", combine)
    back = align(
        "unite",
        AlignmentVocabulary.of(RESOURCES["far"], TOKENIZERS["far"]),
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
    ).reverse

    def whole(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        own = reference.streams[0](input_ids)[:, back.clamp_min(0)].masked_fill(back < 0, -torch.inf)
        union = own > -torch.inf
        return (scores.softmax(-1) + own.softmax(-1)).log().masked_fill(~union & (scores == -torch.inf), -torch.inf)

    class Whole(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return whole(input_ids, scores)

    assert torch.equal(decode(call, **MODES[mode]), decode(bound(""), logits_processor=[Whole()], **MODES[mode]))


@pytest.mark.parametrize(
    "chain",
    [
        "ensemble(models=[])",
        "core(models=[])",
        "ensemble(models=['far'], weights=[2.0, 0.0])",
        "ensemble(models=['far'], gate=0.0)",
        "core(models=['far'], main_floor=1.0)",
        "ensemble(models=['other', 'other'])",
        "core(models=['other'], kernel='linear')",
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_without_effective_helpers_scores_are_unchanged(chain: str, mode: str) -> None:
    """Without helpers, weight or open gate, or with the main model as helper: same scores, and no forward."""
    call = bound(chain, other=tiny_model())
    scores = torch.randn(3, 272)
    assert call.composite(call.inputs["input_ids"], scores) is scores
    assert torch.equal(decode(call, **MODES[mode]), decode(bound(""), **MODES[mode]))
    assert set(call.trace.forwards.values()) <= {0}


def test_a_helper_with_the_same_tokenizer_needs_no_alignment() -> None:
    """The ensemble of two models over one vocabulary is their mean, also for ids beyond the tokenizer."""
    call = bound("ensemble(models=['other'], weights=[1.0, 3.0])", other=tiny_model(1))
    ids, scores = call.inputs["input_ids"], torch.randn(3, 272)
    helper = call.composite.parts[0][1].helpers[0]
    assert helper.alignment is None
    want = (0.25 * scores.softmax(-1) + 0.75 * helper.read(ids).softmax(-1)).log()
    torch.testing.assert_close(call.composite(ids, scores), want)


def test_the_gate_changes_only_unsure_rows() -> None:
    """A sure row keeps its scores; a step at which all rows are sure costs no forward."""
    call = bound("ensemble(models=['far'], gate=0.5)")
    scores = torch.zeros(3, 272)
    scores[:, 5] = 20.0
    assert call.composite(call.inputs["input_ids"], scores) is scores and call.trace.forwards == {"far": 0}
    scores[1] = 0.0
    got = call.composite(call.inputs["input_ids"], scores)
    assert torch.equal(got[[0, 2]], scores[[0, 2]]) and not torch.equal(got[1], scores[1])
    assert call.trace.forwards == {"far": 1} and call.trace.fired["ensemble"] == pytest.approx(1 / 6)


def test_the_scores_are_normalised_log_probabilities() -> None:
    """Scores are log-probabilities; the released code of CoRE returns probabilities, which softmax flattens."""
    for chain in ("ensemble(models=['far'], align='exact')", "core(models=['far'], guard=False)"):
        call = bound(chain)
        got = call.composite(call.inputs["input_ids"], 3 * torch.randn(3, 272))
        torch.testing.assert_close(got.exp().sum(-1), torch.ones(3))
        torch.testing.assert_close(got, got.log_softmax(-1))


def test_the_trace_records_weights_disagreement_and_loss() -> None:
    """Each recorded step has the weights, disagreements and lost probability; a notice has the coverage."""
    call = bound("core(models=['far', 'piece'], align='exact', guard=False)", trace=True)
    decode(call)
    notes = call.trace.steps[0].notes
    weights = [notes[f"weight_{name}"] for name in ("main", "far", "piece")]
    assert sum(weights) == pytest.approx(1) and weights[0] >= 0.5 - 1e-6
    assert 0 <= notes["disagreement_far"] <= 1 and 0 <= notes["lost_far"] <= 1 and notes["filtered_far"] >= 0
    assert any("tokens of far by exact: 257 exact, 0 partial, 12 none" in notice for notice in call.trace.notices)


def test_without_the_registry() -> None:
    """A helper is any function from rows to logits."""
    processor = Ensemble(helpers=[Member(name="flat", read=lambda ids: torch.zeros(len(ids), 4))], weights=[1.0, 1.0])
    scores = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log()
    want = torch.tensor([[0.475, 0.175, 0.175, 0.175]])
    torch.testing.assert_close(processor(torch.zeros(1, 1, dtype=torch.long), scores).exp(), want)
    assert math.isclose(float(processor(torch.zeros(1, 1, dtype=torch.long), scores).exp().sum()), 1, rel_tol=1e-6)


def test_the_example_runs() -> None:
    """examples/ensemble_across_tokenizers.py runs on tiny models."""
    script = Path(__file__).parents[3] / "examples" / "ensemble_across_tokenizers.py"
    main = runpy.run_path(str(script))["main"]
    assert main(tiny_model(), tiny_tokenizer(), RESOURCES["far"], TOKENIZERS["far"])
