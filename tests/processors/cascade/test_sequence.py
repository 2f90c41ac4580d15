"""Sequence-level cascades: only deferred prompts reach the next stage."""

from __future__ import annotations

import math
from typing import Any

import pytest
from torch import Tensor

from fakes import absolute_model
from logitkit.errors import ParameterError
from logitkit.processors.cascade import SequenceCascade, Stage, generate_outputs
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "three", "and a fourth", "five"]
SETTINGS = {"max_new_tokens": 6}


def stages(*models: Any) -> list[Stage]:
    """Return stages of tiny models, with batches of two."""
    return [Stage(model=model, tokenizer=tiny_tokenizer(), batch_size=2) for model in models]


def test_only_deferred_prompts_reach_the_next_stage() -> None:
    """Each output is that of its stage alone, and the large model never reads the other prompts."""
    batches: list[int] = []
    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), rule="average").calibrate(PROMPTS, 0.4, **SETTINGS)
    hook = tiny_model(1).register_forward_pre_hook(
        lambda _, __, kwargs: batches.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    result = cascade.generate(PROMPTS, **SETTINGS)
    hook.remove()
    assert result.rates == [1.0, 0.4] and sorted(result.stages) == [0, 0, 0, 1, 1] and set(batches) == {2}
    for prompt, text, stage in zip(PROMPTS, result.texts, result.stages, strict=True):
        assert text == generate_outputs(stages(tiny_model(stage))[0], [prompt], **SETTINGS).texts[0]
    lowest = sorted(score[0] for score in result.scores)[:2]
    assert sorted(s[0] for s, stage in zip(result.scores, result.stages, strict=True) if stage) == lowest


def test_three_stages() -> None:
    """Prompts that the second stage defers reach the third; each stage is calibrated on the prompts it receives."""
    models = stages(tiny_model(), tiny_model(1), absolute_model())
    cascade = SequenceCascade(models, rule="quantile", alpha=0.0).calibrate(PROMPTS, [0.8, 0.5], **SETTINGS)
    result = cascade.generate(PROMPTS, **SETTINGS)
    assert result.rates == [1.0, 0.8, 0.4]
    assert sorted(result.stages) == [0, 1, 1, 2, 2]
    kept_first = [score for score, stage in zip(result.scores, result.stages, strict=True) if stage == 0]
    assert all(math.isnan(score[1]) for score in kept_first)


@pytest.mark.parametrize(("threshold", "stage"), [(-math.inf, 0), (math.inf, 1)])
def test_infinite_thresholds_give_one_model_alone(threshold: float, stage: int) -> None:
    """A threshold of -inf defers no prompt, and a threshold of inf defers every prompt."""
    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), thresholds=[threshold])
    result = cascade.generate(PROMPTS, **SETTINGS)
    assert result.texts == generate_outputs(stages(tiny_model(stage))[0], PROMPTS, **SETTINGS).texts
    assert set(result.stages) == {stage}


def test_a_function_can_be_the_rule() -> None:
    """A function of log-probabilities and mask scores the outputs."""

    def length(logps: Tensor, mask: Tensor) -> Tensor:
        return mask.sum(-1).float()

    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), rule=length, thresholds=[100.0])
    assert cascade.generate(PROMPTS, **SETTINGS).rates == [1.0, 1.0]


def test_no_prompts_give_no_outputs() -> None:
    """An empty list of prompts gives an empty list of texts."""
    cascade = SequenceCascade(stages(tiny_model(), tiny_model(1)), thresholds=[0.0])
    assert cascade.generate([], **SETTINGS).texts == []


def test_bad_settings_are_refused() -> None:
    """Too few stages, settings outside their range, an empty calibration set and beam search raise an error."""
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
