"""What the generating model computed anyway is used exactly when it is the row's own."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from fakes import absolute_model, encoder_decoder_model, sliding_model
from fusing import hooks
from logitkit.errors import ModelError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.prompts import read_prompts
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt"]
KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model, "encoder": encoder_decoder_model}


def bound(model: Any, texts: list[str] = PROMPTS) -> Binding:
    """Bind the prompts to a model."""
    return Binding(model, tiny_tokenizer(), read_prompts(tiny_tokenizer(), model, texts))


class Asks:
    """Asks for logits and hidden state at every step, and compares them with reading the row from scratch."""

    def __init__(self, binding: Binding) -> None:
        self.binding, self.worst, self.states = binding, 0.0, not binding.prompts.in_encoder
        self.overheard = CapturedOutputs(binding, hidden=self.states)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = self.overheard.logits(input_ids, scores).log_softmax(-1)
        state = self.overheard.hidden(input_ids, scores) if self.states else None
        model, prompts = self.binding.model, self.binding.prompts
        for row, ids in enumerate(input_ids):
            prompt = int(prompts.rows(input_ids)[row])
            own = torch.tensor([prompts.tokens(prompt)])
            if prompts.in_encoder:
                want = model(input_ids=own, decoder_input_ids=ids[None])
            else:
                own = torch.cat([own, ids[None, prompts.width :]], dim=1)
                want = model(input_ids=own, output_hidden_states=True, use_cache=False)
            if state is not None:
                self.worst = max(self.worst, float((want.hidden_states[-1][0, -1] - state[row]).abs().max()))
            difference = (want.logits[0, -1].log_softmax(-1) - logits[row]).abs().max()
            self.worst = max(self.worst, float(difference))
        return scores


def run(asks: Asks, before: list[Any] | None = None, **mode: Any) -> Tensor:
    """Generate 8 tokens."""
    prompts = asks.binding.prompts
    settings = {"max_new_tokens": 8, "do_sample": False, "attention_mask": prompts.mask} | mode
    return asks.binding.model.generate(prompts.ids, logits_processor=[*(before or []), asks], **settings)


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_reading_from_scratch(kind: str, mode: dict[str, Any]) -> None:
    """Greedy, beams, samples, padded prompts; the reader is hardly ever needed."""
    asks = Asks(bound(KINDS[kind]()))
    run(asks, **mode)
    assert asks.worst < 1e-4
    assert asks.overheard.misses == 0


def test_a_mask_before_it_is_no_change() -> None:
    """min_new_tokens makes the end impossible; all else is the model's own, bit for bit."""
    asks = Asks(bound(tiny_model()))
    run(asks, min_new_tokens=8)
    assert asks.worst < 1e-4 and asks.overheard.misses == 0


@pytest.mark.parametrize("mode", ["penalty", "assistant", "prompt_lookup"])
def test_what_is_not_the_rows_own_is_read(mode: str) -> None:
    """Changed scores, drafts of another model, several positions a forward: a reader answers, and is right."""
    model = tiny_model()
    asks = Asks(bound(model, ["abcabcabcabc"]))
    more: dict[str, Any] = {
        "penalty": {"repetition_penalty": 1.3},
        "assistant": {"assistant_model": tiny_model(1)},
        "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    }[mode]
    run(asks, **more)
    assert asks.worst < 1e-4
    assert asks.overheard.misses > 0


def test_it_listens_no_longer_than_it_lives() -> None:
    """The hooks go with it."""
    model = tiny_model(5)
    before = hooks(model) | hooks(model.base_model)
    overheard = CapturedOutputs(bound(model), hidden=True)
    ours = (hooks(model) | hooks(model.base_model)) - before
    del overheard
    gc.collect()
    assert len(ours) == 2 and not ours & (hooks(model) | hooks(model.base_model))


def test_it_cannot_be_pickled_and_says_so() -> None:
    """It listens to a model."""
    with pytest.raises(ModelError, match="CapturedOutputs: cannot be pickled"):
        pickle.dumps(CapturedOutputs(bound(tiny_model())))


def test_no_hidden_state_behind_an_encoder() -> None:
    """Refused by name."""
    with pytest.raises(ModelError, match="HiddenStates: T5ForConditionalGeneration must be decoder-only"):
        CapturedOutputs(bound(encoder_decoder_model()), hidden=True)
