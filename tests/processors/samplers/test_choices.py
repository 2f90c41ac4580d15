"""The continuation is one of the options, tokenized behind the prompt, with the renormalised probabilities."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ModelError, ParameterError, ScoresError
from logitkit.processors.engine import Constraint
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

END = 257


def bound(options: list[str], prompts: Any = "a prompt", model: Any = None, tokenizer: Any = None) -> Any:
    """The call and its step."""
    model, tokenizer = model or tiny_model(), tokenizer or tiny_tokenizer()
    call = logitkit.chain([{"name": "choices", "params": {"options": options}}]).bind(model, tokenizer, prompts)
    return call, call.composite.parts[0][1]


def allowed(step: Any, prompt: torch.Tensor, text: str) -> list[str]:
    """The tokens that may follow a prompt and a text, in order."""
    tokenizer = tiny_tokenizer()
    tail = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]], dtype=torch.long)
    mask = step.allowed(torch.cat([prompt, tail], dim=1))[0]
    return tokenizer.convert_ids_to_tokens(mask.nonzero()[:, 0].tolist())


def test_by_hand() -> None:
    """An option that is the beginning of another one allows both its end and the longer one."""
    call, step = bound(["no", "not", "yes"])
    assert isinstance(step, Constraint)
    follow = {text: allowed(step, call.prompts.ids, text) for text in ("", "n", "no", "not", "ye", "x", "yesx")}
    want = {"": ["n", "y"], "n": ["o"], "no": ["t", "</s>"], "not": ["</s>"], "ye": ["s"], "x": [], "yesx": []}
    assert follow == want


def test_a_row_that_is_no_option_is_left_alone() -> None:
    """Beams of probability 0 and drafts behind a rejected token hold such rows; the step must not fail on them."""
    call, step = bound(["yes"])
    scores = torch.zeros(1, 272)
    assert step(torch.cat([call.prompts.ids, torch.tensor([[1, 2]])], dim=1), scores) is scores
    assert step.allowed(torch.cat([call.prompts.ids, torch.tensor([[END, 258]])], dim=1)).all()


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 4},
    "beams": {"num_beams": 4, "num_return_sequences": 4},  # more beams than options
    "assisted": {"assistant_model": foreign_model(3)},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_output_is_an_option(mode: str) -> None:
    """In a batch too; of beams, the best one."""
    options = [" the other", " on", "é"]
    prompts = ["on the other, one"] if mode in ("assisted", "lookup") else ["on the", "the other one"]
    call, _ = bound(options, prompts, foreign_model(), foreign_tokenizer())
    for _ in range(2):
        torch.manual_seed(0)
        texts = call.texts(call.generate(max_new_tokens=12, **{"do_sample": False, **MODES[mode]}))
        assert set(texts[:: 4 if mode == "beams" else 1]) <= set(options)


def test_tokens_are_those_behind_the_prompt() -> None:
    """Behind "on" the option is one token; an option that merges with the end of the prompt is text of its own."""
    call, step = bound([" the", " other"], ["on"], foreign_model(), foreign_tokenizer())
    mask = step.allowed(call.prompts.ids)[0]
    assert foreign_tokenizer().convert_ids_to_tokens(mask.nonzero()[:, 0].tolist()) == ["Ġthe", "Ġo"]
    call, step = bound(["e"], ["th"], foreign_model(), foreign_tokenizer())  # "the" is one token
    mask = step.allowed(call.prompts.ids)[0]
    assert foreign_tokenizer().convert_ids_to_tokens(mask.nonzero()[:, 0].tolist()) == ["e"]


def test_the_distribution_is_the_local_one() -> None:
    """Every option's probability is the product of the model's renormalised probabilities; they sum to one."""
    options = ["ab", "ac", "a", "b"]
    call, step = bound(options)
    width = call.prompts.width
    total, model = 0.0, tiny_model()
    for text in options:
        tokens = [*tiny_tokenizer()(text)["input_ids"], END]
        row = torch.cat([call.prompts.ids, torch.tensor([tokens])], dim=1)
        probability = 1.0
        for count, token in enumerate(tokens):
            prefix = row[:, : width + count]
            with torch.no_grad():
                logits = model(prefix).logits[:, -1]
            after = call.composite(prefix, logits).softmax(-1)[0]
            mask = step.allowed(prefix)[0]
            want = logits.softmax(-1)[0].masked_fill(~mask, 0)
            torch.testing.assert_close(after, want / want.sum())
            probability *= float(after[token])
        total += probability
    assert total == pytest.approx(1)


def test_options_behind_a_cut_prompt() -> None:
    """byte_boundary cuts the end of the prompt; each option then begins with the bytes that were cut."""
    chain = "byte_boundary() | choices(options=['e other', 'in'])"
    for sample, seed in itertools.product((False, True), range(3)):
        torch.manual_seed(seed)
        generation = logitkit.generate(
            foreign_model(), foreign_tokenizer(), "on th", chain=chain, do_sample=sample, max_new_tokens=12
        )
        assert generation.texts[0] in ("e other", "in")


def test_a_prompt_of_an_encoder() -> None:
    """The decoder begins with the option."""
    model = encoder_decoder_model()
    options = ["yes", "no"]
    call, _ = bound(options, ["one", "another"], model)
    assert set(call.texts(call.generate(max_new_tokens=6, do_sample=False))) <= set(options)


def test_dead_ends_are_named() -> None:
    """An earlier step that removed every option, and a model without an end token."""
    call, step = bound(["yes"])
    scores = torch.zeros(1, 272)
    scores[0, tiny_tokenizer()("y")["input_ids"]] = -torch.inf
    with pytest.raises(ScoresError, match="were removed by an earlier step; put choices first"):
        step(call.prompts.ids, scores)
    call.settings.tell({"eos_token_id": []})
    row = torch.cat([call.prompts.ids, torch.tensor([tiny_tokenizer()("yes")["input_ids"]])], dim=1)
    with pytest.raises(ScoresError, match="set an end token"):
        step(row, torch.zeros(1, 272))


def test_rules() -> None:
    """Options are distinct texts, and there is an end token."""
    for options in ([], [""], ["a", "a"]):
        with pytest.raises(ParameterError, match="choices: options must be one or more distinct texts, none empty"):
            bound(options)
    endless, tokenizer = copy.deepcopy((foreign_model(), foreign_tokenizer()))
    endless.generation_config.eos_token_id = tokenizer.eos_token = None
    with pytest.raises(ModelError, match="must have an end token"):
        bound(["a"], model=endless, tokenizer=tokenizer)


def test_pickles() -> None:
    """A copy allows the same."""
    call, step = bound(["yes", "no"])
    copy = pickle.loads(pickle.dumps(step))
    assert torch.equal(copy.allowed(call.prompts.ids), step.allowed(call.prompts.ids))
