"""Outputs of one stage: their log-probabilities equal recomputation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from logitkit.processors.cascade import Stage, generate_outputs
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "three", "and a fourth", "five"]
SETTINGS = {"max_new_tokens": 6}
END = 257


@torch.no_grad()
def logps_from_scratch(model: Any, prompt: str, include_end: bool, **settings: Any) -> list[float]:
    """Return the log-probability of every emitted token of one prompt; each prefix is read anew."""
    ids = tiny_tokenizer()(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(ids, do_sample=False, **SETTINGS, **settings)[0]
    logps = []
    for place in range(ids.shape[1], len(out)):
        if int(out[place]) == END and not include_end:
            break
        logps.append(float(model(out[None, :place]).logits[0, -1].log_softmax(-1)[out[place]]))
    return logps


@pytest.mark.parametrize("include_end", [True, False])
def test_logps_equal_recomputation(include_end: bool) -> None:
    """Log-probabilities in padded batches are those of the model itself, under a logits processor too."""
    model, stage = tiny_model(), Stage(model=tiny_model(), tokenizer=tiny_tokenizer(), batch_size=2)
    for settings in ({}, {"repetition_penalty": 1.5}):
        got = generate_outputs(stage, PROMPTS, include_end=include_end, **SETTINGS, **settings)
        for row, prompt in enumerate(PROMPTS):
            want = logps_from_scratch(model, prompt, include_end, **settings)
            assert got.logps[row][got.mask[row]].tolist() == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("include_end", [True, False])
def test_the_mask_stops_at_the_first_end_token(include_end: bool) -> None:
    """With the third token as the end token, the mask has two tokens, or three with the end token."""
    model, stage = tiny_model(), Stage(model=tiny_model(), tokenizer=tiny_tokenizer(), batch_size=2)
    three = tiny_tokenizer()("three", return_tensors="pt")["input_ids"]
    end = int(model.generate(three, max_new_tokens=3, do_sample=False)[0, -1])
    got = generate_outputs(stage, PROMPTS, include_end=include_end, **SETTINGS, eos_token_id=end)
    assert int(got.mask[2].sum()) == 2 + include_end


@pytest.mark.parametrize("way", ["arguments", "generation_config"])
def test_told_end_and_padding_are_used(way: str) -> None:
    """A told end token ends the mask, and padding with a letter is no text, in either way of telling."""
    stage = Stage(model=tiny_model(), tokenizer=tiny_tokenizer())
    three = tiny_tokenizer()("three", return_tensors="pt")["input_ids"]
    end = int(tiny_model().generate(three, max_new_tokens=3, do_sample=False)[0, -1])
    told: dict[str, Any] = {"eos_token_id": end, "pad_token_id": 97}
    if way == "generation_config":
        told = {"generation_config": GenerationConfig(**told)}
    got = generate_outputs(stage, PROMPTS, **SETTINGS, **told)
    assert int(got.mask[2].sum()) == 3
    alone = [generate_outputs(stage, [prompt], **SETTINGS, eos_token_id=end).texts[0] for prompt in PROMPTS]
    assert got.texts == alone
