"""A chain with a search in a call: streamers, repetition penalties, attached models, other models and caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TextStreamer

import logitkit
from logitkit.errors import ModeError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

PROMPTS = ["ab", "c"]


def generated(chain: str, model: Any = None, prompts: Any = PROMPTS, **settings: Any) -> Any:
    """Tokens of one call under seed 0."""
    torch.manual_seed(0)
    call = logitkit.chain(chain).bind(model or tiny_model(), tiny_tokenizer(), prompts)
    return call.generate(max_new_tokens=5, **settings)


@pytest.mark.parametrize("settings", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_the_cache_does_not_change_the_rows(settings: dict[str, Any]) -> None:
    assert torch.equal(generated("smc(3, ess=1.0)", **settings), generated("smc(3, ess=1.0)"))


def test_an_encoder_decoder_model_is_searched() -> None:
    """One greedy particle writes what plain decoding writes."""
    model: Any = encoder_decoder_model()
    assert torch.equal(generated("smc(1)", model, do_sample=False), generated("", model, do_sample=False))
    assert generated("smc(4)", model, num_return_sequences=4).shape[0] == 8


def test_a_streamer_gets_the_prompt_and_the_finished_text() -> None:
    class Listener(TextStreamer):
        def __init__(self) -> None:
            super().__init__(tiny_tokenizer(), skip_prompt=True, skip_special_tokens=True)  # type: ignore[no-untyped-call]
            self.heard: list[str] = []

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.heard.append(text)

    listener = Listener()
    call = logitkit.chain("smc(3)").bind(tiny_model(), tiny_tokenizer(), "ab")
    assert "".join([*call.texts(call.generate(max_new_tokens=5, streamer=listener))]) == "".join(listener.heard)


def test_a_repetition_penalty_is_a_step() -> None:
    """As a setting it is refused by name, and as a step it works."""
    with pytest.raises(ModeError, match="repetition_penalty must be a step of the chain"):
        generated("smc(3)", repetition_penalty=1.3)
    assert generated("repetition_penalty(1.3) | smc(3)").shape[0] == 2


def test_an_attached_model_searches() -> None:
    inputs = tiny_tokenizer()("ab", return_tensors="pt")
    with logitkit.attach(tiny_model(), tiny_tokenizer(), "smc(3) | mbr(utility='chrf')"):
        assert tiny_model().generate(**inputs, max_new_tokens=4).shape == (1, 6)


def test_texts_of_a_generate_without_the_search_are_refused() -> None:
    call = logitkit.chain("smc(3)").bind(tiny_model(), tiny_tokenizer(), "ab")
    output = tiny_model().generate(**call.inputs, logits_processor=call.processors, max_new_tokens=2, do_sample=False)
    with pytest.raises(ModeError, match=r"custom_generate=call\.search"):
        call.texts(output)


@pytest.mark.parametrize(
    "settings", [{"num_beams": 2}, {"prompt_lookup_num_tokens": 2}, {"return_dict_in_generate": True}]
)
def test_settings_that_a_search_cannot_follow_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ModeError, match="smc"):
        generated("smc(3)", **settings)


def test_inspecting_and_scoring_refuse_a_search_by_name() -> None:
    from logitkit.inspection import inspect

    with pytest.raises(ModeError, match="inspect: a chain must write one row"):
        inspect(tiny_model(), tiny_tokenizer(), "ab", "smc(3)", max_new_tokens=2)
    with pytest.raises(ModeError, match="score: smc must be left out"):
        logitkit.score(tiny_model(), tiny_tokenizer(), "ab", ["c"], chain="smc(3)")
