"""Wrong prompts and resources, and settings under which a chain would be ignored, are refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import logitkit
from fakes import absolute_model
from logitkit.errors import ModeError, ModelError, ParameterError, PromptError, ScoresError, UnknownNameError
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXTS = ["one prompt", "a second, longer prompt", "three"]
CHAT = [{"role": "user", "content": "hello"}]


def generate(chain: str) -> Any:
    """Generate with the tiny model from three prompts."""
    return logitkit.generate(tiny_model(), tiny_tokenizer(), TEXTS, chain=chain, max_new_tokens=8, do_sample=False)


BAD_PROMPTS: list[tuple[Any, str]] = [
    ([], "prompts must be text"),
    (3, "prompts must be text"),
    ("", "prompt 0 has no tokens"),
    (["a", CHAT], "all be text or all be chat"),
    ({"inputs_embeds": torch.zeros(1, 2, 3)}, "not inputs_embeds"),
    ({"input_ids": torch.tensor([1, 2])}, r"must be \[prompts, tokens\]"),
    ({"input_ids": torch.ones(1, 2, dtype=torch.long), "attention_mask": torch.zeros(1, 2)}, "all padding"),
    ({"input_ids": torch.ones(1, 2, dtype=torch.long), "pixel_values": 3}, "got also pixel_values"),
]


@pytest.mark.parametrize(("prompts", "says"), BAD_PROMPTS)
def test_bad_prompts(prompts: Any, says: str) -> None:
    """Each wrong form of prompts raises one named error before any model runs."""
    with pytest.raises(PromptError, match=says):
        logitkit.chain("cfg()").bind(tiny_model(), tiny_tokenizer(), prompts)


@pytest.mark.parametrize(
    ("chain", "says"),
    [
        ("cfg(negative=['a', 'b'])", "negative must be one text, or 3"),
        ("uscd(lame=['a', ''])", "none empty"),
        ("cad(context='nowhere')", "context must be a piece of its prompt"),
    ],
)
def test_second_prompts_that_do_not_match(chain: str, says: str) -> None:
    """Second prompts that are too few, empty or not part of the prompt are refused."""
    with pytest.raises(ParameterError, match=says):
        generate(chain)


def test_chat_without_a_template() -> None:
    """A chat for a tokenizer without a template is refused, with the advice to pass text."""
    with pytest.raises(ModelError, match="pass plain text instead"):
        logitkit.chain().bind(tiny_model(), tiny_tokenizer(), CHAT)


def test_a_row_from_another_prompt() -> None:
    """A row that begins with none of the bound prompts is refused."""
    call = logitkit.chain("cfg(2.0)").bind(tiny_model(), tiny_tokenizer(), "one prompt")
    other = tiny_tokenizer()("other text", return_tensors="pt")
    with pytest.raises(PromptError, match="every row must start with a prompt of this call"):
        tiny_model().generate(**other, logits_processor=call.processors, max_new_tokens=2)


def test_embeddings_instead_of_ids() -> None:
    """inputs_embeds are refused, since rows without token ids match no prompt."""
    model = tiny_model()
    call = logitkit.chain("cfg(2.0)").bind(model, tiny_tokenizer(), "one prompt")
    embeds = model.get_input_embeddings()(call.inputs["input_ids"])
    with pytest.raises(PromptError, match="input_ids rather than inputs_embeds"):
        model.generate(inputs_embeds=embeds, logits_processor=call.processors, max_new_tokens=2)
    with pytest.raises(ModeError, match="inputs_embeds must not be given"):
        call.generate(inputs_embeds=embeds)


def test_continuous_batching_is_refused() -> None:
    """Call.generate refuses continuous batching, and Call.texts refuses ids if the chain was never called."""
    call = logitkit.chain("cfg(2.0)").bind(tiny_model(), tiny_tokenizer(), "one prompt")
    with pytest.raises(ModeError, match="must not be 'paged'"):
        call.generate(cache_implementation="paged")
    ignored = tiny_model().generate(**call.inputs, max_new_tokens=2)
    with pytest.raises(ModeError, match="generate never called it"):
        call.texts(ignored)


def test_a_row_without_a_choice_is_refused_by_name() -> None:
    """A row of -inf alone raises an error that names the processor which produced it."""
    every = list(range(272))
    with pytest.raises(ScoresError, match="only -inf in row 0 from suppress_tokens"):
        generate(f"cfg(2.0) | suppress_tokens({every})")


def test_nan_logits_are_refused_by_name() -> None:
    """NaN in the logits raises an error that names the model."""
    call = logitkit.chain("cfg(2.0) | top_k(3)").bind(tiny_model(), tiny_tokenizer(), "one")
    scores = torch.zeros(1, 272)
    scores[0, 3] = torch.nan
    with pytest.raises(ScoresError, match="NaN in row 0 from the model"):
        call.composite(call.inputs["input_ids"], scores)


def test_resources() -> None:
    """A resource that no parameter names is refused, and so is a model with another vocabulary."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(UnknownNameError, match="no resource of the chain named 'amateurs'; did you mean"):
        logitkit.chain("contrastive('amateur')").bind(model, tokenizer, "a", amateur=tiny_model(1), amateurs=model)
    with pytest.raises(ModelError, match=r"contrastive: model 'm' must have the vocabulary"):
        wide = copy.deepcopy(absolute_model().config)
        wide.vocab_size = 300
        logitkit.chain("contrastive('m')").bind(model, tokenizer, "a", m=type(absolute_model())(wide))


def test_not_a_model() -> None:
    """A module without generate is refused."""
    with pytest.raises(ModelError, match="a transformers model with generate, got Linear"):
        logitkit.chain().bind(torch.nn.Linear(2, 2), tiny_tokenizer(), "a")
