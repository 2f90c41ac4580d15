"""Cascades on SmolLM2-135M: the machinery on a real model, small and large being the same where one is enough."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import logitkit
from logitkit.processors.cascade.sequence import SequenceCascade, Stage
from logitkit.processors.cascade.speculative import SpeculativeCascade
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.trace import Trace

PROMPTS = ["The capital of France is", "In a quiet village there lived an old"]


def test_a_speculative_cascade_with_itself_is_greedy(smollm2: Any) -> None:
    """The ids of model.generate; five tokens for each large forward."""
    model, tokenizer = smollm2
    inputs, trace = tokenizer(PROMPTS[0], return_tensors="pt"), Trace()
    settings: dict[str, Any] = {"max_new_tokens": 15, "do_sample": False, "eos_token_id": None}
    way = SpeculativeCascade(large=model, rule="token_v3", alpha=0.0, draft=4, trace=trace)
    got = model.generate(**inputs, custom_generate=way, **settings)
    assert torch.equal(got, model.generate(**inputs, **settings))
    assert trace.forwards["large"] == 3


def test_hidden_states_are_overheard(smollm2: Any) -> None:
    """On a padded batch, at every step, those of ``output_hidden_states``; the model is not read again."""
    model, tokenizer = smollm2
    call = logitkit.chain("").bind(model, tokenizer, PROMPTS)
    overheard = CapturedOutputs(Binding(model, tokenizer, call.prompts), hidden=True)
    seen: list[Tensor] = []

    def ask(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(overheard.hidden(input_ids, scores))
        return scores

    out = model.generate(
        **call.inputs,
        logits_processor=[ask],
        max_new_tokens=4,
        do_sample=False,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    assert overheard.misses == 0
    for mine, theirs in zip(seen, out.hidden_states, strict=True):
        torch.testing.assert_close(mine, theirs[-1][:, -1])


def test_a_sequence_cascade_answers(smollm2: Any) -> None:
    """Half of two prompts goes on; both are answered."""
    stages = [Stage(model=smollm2[0], tokenizer=smollm2[1])] * 2
    done = (
        SequenceCascade(stages, rule="average")
        .calibrate(PROMPTS, 0.5, max_new_tokens=4)
        .generate(PROMPTS, max_new_tokens=4)
    )
    assert done.rates == [1.0, 0.5] and "Paris" in done.texts[0]
