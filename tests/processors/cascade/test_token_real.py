"""Cascades on SmolLM2-135M; some tests use the same model as small and as large model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import logitkit
from logitkit.processors.cascade import SequenceCascade, SpeculativeCascade, Stage
from logitkit.processors.engine import Binding, CapturedOutputs, Trace

PROMPTS = ["The capital of France is", "In a quiet village there lived an old"]


def test_a_speculative_cascade_of_one_model_is_greedy(smollm2: Any) -> None:
    """The ids are those of model.generate, and each large forward emits five tokens."""
    model, tokenizer = smollm2
    inputs, trace = tokenizer(PROMPTS[0], return_tensors="pt"), Trace()
    settings: dict[str, Any] = {"max_new_tokens": 15, "do_sample": False, "eos_token_id": None}
    cascade = SpeculativeCascade(large=model, rule="token_v3", alpha=0.0, draft_length=4, trace=trace)
    got = model.generate(**inputs, custom_generate=cascade, **settings)
    assert torch.equal(got, model.generate(**inputs, **settings))
    assert trace.forwards["large"] == 3


def test_hidden_states_are_captured_from_the_model(smollm2: Any) -> None:
    """On a padded batch, captured states equal ``output_hidden_states`` at every step; no further forward runs."""
    model, tokenizer = smollm2
    call = logitkit.chain("").bind(model, tokenizer, PROMPTS)
    captured = CapturedOutputs(Binding(model, tokenizer, call.prompts), hidden=True)
    states: list[Tensor] = []

    def watch(input_ids: Tensor, scores: Tensor) -> Tensor:
        states.append(captured.hidden(input_ids, scores))
        return scores

    out = model.generate(
        **call.inputs,
        logits_processor=[watch],
        max_new_tokens=4,
        do_sample=False,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    assert captured.misses == 0
    for got, want in zip(states, out.hidden_states, strict=True):
        torch.testing.assert_close(got, want[-1][:, -1])


def test_a_sequence_cascade_generates_for_every_prompt(smollm2: Any) -> None:
    """One of two prompts is deferred, and both have an output."""
    stages = [Stage(model=smollm2[0], tokenizer=smollm2[1])] * 2
    cascade = SequenceCascade(stages, rule="average").calibrate(PROMPTS, 0.5, max_new_tokens=4)
    result = cascade.generate(PROMPTS, max_new_tokens=4)
    assert result.rates == [1.0, 0.5] and "Paris" in result.texts[0]
