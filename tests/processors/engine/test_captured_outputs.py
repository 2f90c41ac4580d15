"""Captured outputs of the generating model are used exactly when they belong to the rows."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from fakes import absolute_model, encoder_decoder_model, sliding_model
from fusing import hooks
from logitkit.errors import ModelError
from logitkit.processors.engine import BehindRows, Binding, CapturedLayers, CapturedOutputs, read_prompts
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt"]
KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model, "encoder": encoder_decoder_model}


def bound(model: Any, texts: list[str] = PROMPTS) -> Binding:
    """Return a binding of the prompts to a model."""
    return Binding(model, tiny_tokenizer(), read_prompts(tiny_tokenizer(), model, texts))


class Compares:
    """Compares captured logits and hidden states with a forward over each whole row, at every step."""

    def __init__(self, binding: Binding) -> None:
        self.binding, self.worst, self.states = binding, 0.0, not binding.prompts.in_encoder
        self.captured = CapturedOutputs(binding, hidden=self.states)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = self.captured.logits(input_ids, scores).log_softmax(-1)
        state = self.captured.hidden(input_ids, scores) if self.states else None
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


def run(compares: Compares, before: list[Any] | None = None, **mode: Any) -> Tensor:
    """Generate 8 tokens."""
    prompts = compares.binding.prompts
    settings = {"max_new_tokens": 8, "do_sample": False, "attention_mask": prompts.mask} | mode
    return compares.binding.model.generate(prompts.ids, logits_processor=[*(before or []), compares], **settings)


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_reading_from_scratch(kind: str, mode: dict[str, Any]) -> None:
    """Captured outputs equal a new forward under greedy decoding, beams and sampling; no reader is needed."""
    model = copy.deepcopy(KINDS[kind]()).double()  # in single precision rare samples differ by more than the bound
    compares = Compares(bound(model))
    run(compares, **mode)
    assert compares.worst < 1e-4
    assert compares.captured.misses == 0


def test_a_masked_token_does_not_prevent_a_match() -> None:
    """min_new_tokens forbids the end token before the chain; the finite scores still equal the captured logits."""
    compares = Compares(bound(tiny_model()))
    run(compares, min_new_tokens=8)
    assert compares.worst < 1e-4 and compares.captured.misses == 0


@pytest.mark.parametrize("mode", ["penalty", "assistant", "prompt_lookup"])
def test_outputs_of_other_rows_are_not_used(mode: str) -> None:
    """A reader reads the rows when scores were changed, come from a draft model, or are one of several positions."""
    model = tiny_model()
    compares = Compares(bound(model, ["abcabcabcabc"]))
    more: dict[str, Any] = {
        "penalty": {"repetition_penalty": 1.3},
        "assistant": {"assistant_model": tiny_model(1)},
        "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    }[mode]
    run(compares, **more)
    assert compares.worst < 1e-4
    assert compares.captured.misses > 0


def test_hooks_are_removed_with_the_object() -> None:
    """Deleting the object removes its two hooks from the model."""
    model = tiny_model(5)
    before = hooks(model) | hooks(model.base_model)
    captured = CapturedOutputs(bound(model), hidden=True)
    ours = (hooks(model) | hooks(model.base_model)) - before
    del captured
    gc.collect()
    assert len(ours) == 2 and not ours & (hooks(model) | hooks(model.base_model))


@pytest.mark.parametrize("kind", ["outputs", "layers", "behind rows"])
def test_a_model_with_hooks_is_copied(kind: str) -> None:
    """The copy computes the same, and the hooks that it carries read nothing of the model."""
    model = tiny_model()
    binding = bound(model)
    capturing = {
        "outputs": lambda: CapturedOutputs(binding, hidden=True),
        "layers": lambda: CapturedLayers(binding, [0]),
        "behind rows": lambda: BehindRows(binding, [7]),
    }[kind]()
    other, ids = copy.deepcopy(model), binding.prompts.ids
    with torch.no_grad():
        assert torch.equal(other(ids).logits, model(ids).logits)
    assert len(hooks(other)) >= 1 and capturing is not None


def test_captured_outputs_cannot_be_pickled() -> None:
    """The error names the class."""
    with pytest.raises(ModelError, match="CapturedOutputs: cannot be pickled"):
        pickle.dumps(CapturedOutputs(bound(tiny_model())))


def test_hidden_states_of_an_encoder_decoder_model_are_refused() -> None:
    """The error names the class of the model."""
    with pytest.raises(ModelError, match="HiddenStates: T5ForConditionalGeneration must be decoder-only"):
        CapturedOutputs(bound(encoder_decoder_model()), hidden=True)
