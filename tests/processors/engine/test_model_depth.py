"""Streams read with all layers of a model while a draft leaves some out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList

import logitkit
from logitkit.processors.engine import Binding, CapturedOutputs, read_prompts
from logitkit.registry.laws import tiny_model, tiny_tokenizer

SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_early_exit_gives_the_greedy_text(seed: int, used: bool) -> None:
    """A draft of one layer asks the stream first; fresh and used calls write what greedy decoding writes."""
    model = copy.deepcopy(tiny_model(seed))

    def bound() -> Any:
        return logitkit.chain("cfg(2.0, negative='a fish')").bind(model, tiny_tokenizer(), "the old man")

    want = bound().generate(**SETTINGS)
    call = bound()
    if used:
        call.generate(max_new_tokens=4, do_sample=False, streams="lazy")
    assert torch.equal(call.generate(**SETTINGS, assistant_early_exit=1), want)


def test_a_model_has_its_layers_after_an_error_of_a_draft() -> None:
    """A processor that raises while a draft of one layer is made leaves the model as it was."""
    model = copy.deepcopy(tiny_model())

    def raises(*_: Any) -> Any:
        assert model.config.num_hidden_layers == 1
        raise ZeroDivisionError

    call = logitkit.chain("").bind(model, tiny_tokenizer(), "the old man")
    with pytest.raises(ZeroDivisionError):
        call.generate(**SETTINGS, assistant_early_exit=1, logits_processor=LogitsProcessorList([raises]))
    assert model.config.num_hidden_layers == 2


def test_a_forward_without_some_layers_is_not_captured() -> None:
    """The logits of a draft are not those of the model; the reader reads the rows with all layers."""
    model = copy.deepcopy(tiny_model())
    prompts = read_prompts(tiny_tokenizer(), model, "a prompt")
    captured = CapturedOutputs(Binding(model, tiny_tokenizer(), prompts))
    with torch.no_grad():
        want = model(prompts.ids).logits[:, -1]
        model.config.num_hidden_layers = 1
        draft = model(prompts.ids).logits[:, -1]
    got = captured.logits(prompts.ids, draft)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert model.config.num_hidden_layers == 1
