"""Sequence-level cascades: log-probabilities equal to recomputation, only deferred rows go on, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fakes import absolute_model
from logitkit.errors import ParameterError
from logitkit.processors.cascade.sequence import SequenceCascade, Stage, answer
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "three", "and a fourth", "five"]
SETTINGS = {"max_new_tokens": 6}


def stages(*models: Any, batch: int = 2) -> list[Stage]:
    """Stages of tiny models."""
    return [Stage(model=model, tokenizer=tiny_tokenizer(), batch=batch) for model in models]


@torch.no_grad()
def from_scratch(model: Any, prompt: str, include_end: bool, **settings: Any) -> list[float]:
    """One prompt alone: the log-probability of every emitted token, each prefix read anew."""
    ids = tiny_tokenizer()(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(ids, do_sample=False, **SETTINGS, **settings)[0]
    found = []
    for place in range(ids.shape[1], len(out)):
        if int(out[place]) == 257 and not include_end:
            break
        found.append(float(model(out[None, :place]).logits[0, -1].log_softmax(-1)[out[place]]))
    return found


@pytest.mark.parametrize("include_end", [True, False])
def test_logps_equal_recomputation(include_end: bool) -> None:
    """In padded batches, with outputs that end early; under a warper the model's own law counts."""
    model = tiny_model()
    three = tiny_tokenizer()("three", return_tensors="pt")["input_ids"]
    ends_early = {"eos_token_id": int(model.generate(three, max_new_tokens=3, do_sample=False)[0, -1])}
    for settings in ({}, {"repetition_penalty": 1.5}):
        got = answer(stages(model)[0], PROMPTS, include_end=include_end, **SETTINGS, **settings)
        for row, prompt in enumerate(PROMPTS):
            want = from_scratch(model, prompt, include_end, **settings)
            assert got.logps[row][got.mask[row]].tolist() == pytest.approx(want, abs=1e-4)
    got = answer(stages(model)[0], PROMPTS, include_end=include_end, **SETTINGS, **ends_early)
    assert int(got.mask[2].sum()) == 2 + include_end  # the third token ended it


def test_only_deferred_prompts_go_on() -> None:
    """Each answer is its stage's own; the large model is not asked about the others."""
    asked: list[int] = []
    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), rule="average").calibrate(PROMPTS, 0.4, **SETTINGS)
    hook = tiny_model(1).register_forward_pre_hook(
        lambda _, __, kwargs: asked.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    done = cascade.generate(PROMPTS, **SETTINGS)
    hook.remove()
    assert done.rates == [1.0, 0.4] and sorted(done.stages) == [0, 0, 0, 1, 1] and set(asked) == {2}
    for prompt, text, stage in zip(PROMPTS, done.texts, done.stages, strict=True):
        assert text == answer(stages(tiny_model(stage))[0], [prompt], **SETTINGS).texts[0]
    worst = sorted(score[0] for score in done.scores)[:2]
    assert sorted(s[0] for s, stage in zip(done.scores, done.stages, strict=True) if stage) == worst


def test_three_stages() -> None:
    """What the second defers reaches the third; each stage is calibrated on what reaches it."""
    models = stages(tiny_model(), tiny_model(1), absolute_model())
    cascade = SequenceCascade(models, rule="quantile", alpha=0.0).calibrate(PROMPTS, [0.8, 0.5], **SETTINGS)
    done = cascade.generate(PROMPTS, **SETTINGS)
    assert done.rates == [1.0, 0.8, 0.4]
    assert sorted(done.stages) == [0, 1, 1, 2, 2]
    settled = [score for score, stage in zip(done.scores, done.stages, strict=True) if stage == 0]
    assert all(math.isnan(score[1]) for score in settled)


@pytest.mark.parametrize(("threshold", "stage"), [(-math.inf, 0), (math.inf, 1)])
def test_the_ends_of_the_curve_are_the_models_alone(threshold: float, stage: int) -> None:
    """Nothing deferred: the small model. Everything: the large one."""
    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), thresholds=[threshold])
    done = cascade.generate(PROMPTS, **SETTINGS)
    assert done.texts == answer(stages(tiny_model(stage))[0], PROMPTS, **SETTINGS).texts
    assert set(done.stages) == {stage}


def test_any_rule_of_yours() -> None:
    """A function of log-probabilities and mask."""

    def shortest_first(logps: Tensor, mask: Tensor) -> Tensor:
        return mask.sum(-1).float()

    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), rule=shortest_first, thresholds=[100.0])
    assert cascade.generate(PROMPTS, **SETTINGS).rates == [1.0, 1.0]


def test_nothing_to_answer() -> None:
    """No prompts, no answers."""
    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), thresholds=[0.0])
    assert cascade.generate([], **SETTINGS).texts == []


def test_bad_input() -> None:
    """Stages, thresholds, rates, an empty calibration set, beams."""
    two = stages(tiny_model(), tiny_model(1))
    with pytest.raises(ParameterError, match="stages must be two or more, got 1"):
        SequenceCascade(two[:1])
    with pytest.raises(ParameterError, match="thresholds must be 1 numbers"):
        SequenceCascade(two, thresholds=[math.nan])
    with pytest.raises(ParameterError, match="alpha must be"):
        SequenceCascade(two, alpha=-0.1)
    with pytest.raises(ParameterError, match="rule must be"):
        SequenceCascade(two, rule="summ")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="an empty calibration set"):
        SequenceCascade(two).calibrate([], 0.5)
    with pytest.raises(ParameterError, match="rate must be"):
        SequenceCascade(two).calibrate(PROMPTS[:1], 1.5, **SETTINGS)
    with pytest.raises(ParameterError, match="thresholds must be set"):
        SequenceCascade(two).generate(PROMPTS)
    with pytest.raises(ParameterError, match="num_beams and num_return_sequences must be 1"):
        SequenceCascade(two, thresholds=[0.0]).generate(PROMPTS, num_beams=2)
