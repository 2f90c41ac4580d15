"""Facts that a model's configuration states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GemmaConfig, GPT2Config, PaliGemmaConfig, T5Config

from logitkit.processors.model_facts import context_length, end_tokens, id_tuple, text_config, vocabulary_size
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def model_with(ends: Any) -> Any:
    """A model of which only the end tokens of its generation config are known."""
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends))


def tokenizer_with(end: int | None) -> Any:
    """A tokenizer of which only the end token is known."""
    return SimpleNamespace(eos_token_id=end)


def test_facts_of_a_real_model() -> None:
    """A model answers as its configuration does; its end token is the tokenizer's, named once."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert text_config(model) is model.config
    assert context_length(model) == context_length(model.config) == model.config.max_position_embeddings
    assert vocabulary_size(model) == model.get_output_embeddings().weight.shape[0]
    assert end_tokens(model) == end_tokens(model, tokenizer) == (tokenizer.eos_token_id,)


def test_the_part_that_decodes_text_is_asked() -> None:
    """For a model over images and text, all facts are those of its text model."""
    config = PaliGemmaConfig(text_config=GemmaConfig(vocab_size=77, max_position_embeddings=33).to_dict())
    assert (vocabulary_size(config), context_length(config)) == (77, 33)
    assert text_config(config).model_type == "gemma"


@pytest.mark.parametrize(
    ("config", "length"),
    [(GPT2Config(n_positions=9), 9), (T5Config(), None), (SimpleNamespace(max_position_embeddings=0), None)],
)
def test_context_length(config: Any, length: int | None) -> None:
    """The context length has one name whatever the architecture calls it; 0 and absence mean no limit."""
    if isinstance(config, SimpleNamespace):
        config.get_text_config = lambda decoder: config
    assert context_length(config) == length


@pytest.mark.parametrize(
    ("stated", "ids"), [(None, ()), (0, (0,)), ([], ()), ([3, 1], (3, 1)), ((2,), (2,)), (torch.tensor([4, 5]), (4, 5))]
)
def test_ids_of_a_configuration(stated: Any, ids: tuple[int, ...]) -> None:
    """None, one id, a list, a tuple and a tensor of ids are all read; id 0 is an id."""
    assert id_tuple(stated) == ids
    assert all(type(token) is int for token in id_tuple(stated))


def test_end_tokens_without_a_tokenizer() -> None:
    """Without a tokenizer, the end tokens are those at which `generate` stops, in the configuration's order."""
    assert end_tokens(model_with([7, 9])) == (7, 9)
    assert end_tokens(model_with(None)) == ()


def test_end_tokens_with_a_tokenizer() -> None:
    """The tokenizer's end token comes first, and no id comes twice."""
    assert end_tokens(model_with([7, 9]), tokenizer_with(9)) == (9, 7)
    assert end_tokens(model_with([7, 7]), tokenizer_with(0)) == (0, 7)
    assert end_tokens(model_with(None), tokenizer_with(9)) == (9,)
    assert end_tokens(model_with(7), tokenizer_with(None)) == (7,)


def test_settings_of_a_call_replace_the_models_end_tokens() -> None:
    """`eos_token_id` in the settings of a call replaces the model's end tokens, also when it is None."""
    model = model_with([7, 9])
    assert end_tokens(model, settings={"eos_token_id": [5, 6]}) == (5, 6)
    assert end_tokens(model, settings={"eos_token_id": None}) == ()
    assert end_tokens(model, settings={"max_new_tokens": 3}) == (7, 9)
    assert end_tokens(model, tokenizer_with(4), settings={"eos_token_id": 5}) == (4, 5)


@pytest.mark.parametrize("setting", [{}, {"eos_token_id": 60}])
def test_end_tokens_are_where_generate_stops(setting: dict[str, int]) -> None:
    """`generate` goes on after every token but an end token."""
    model, prompt = tiny_model(), torch.tensor([[65, 66]])
    free = model.generate(prompt, do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0)[0, 2:].tolist()
    chosen = {"eos_token_id": free[3]} if setting else {}
    ends = end_tokens(model, settings=chosen)
    stopped = model.generate(prompt, do_sample=False, max_new_tokens=20, pad_token_id=0, **chosen)[0, 2:].tolist()
    length = next((place + 1 for place, token in enumerate(free) if token in ends), len(free))
    assert stopped == free[:length]
