"""Each setting of `generate` beside a search: it works, or an error names it and says what to write."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import logitkit
from logitkit.errors import ModeError, NoEffectWarning
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

CHAINS = {
    "smc": "smc(3)",
    "beams": "beams(width=4, groups=2)",
    "goose": "goose(budget=8)",
    "rewind": "rewind(['zz'])",
    "adadec": "adadec(9.0)",
    "contrastive_search": "contrastive_search(0.6, top=3)",
    "best_of": "best_of(3)",
}
# Settings of other loops, with what the error says besides the name of the search.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha must not be given.* write contrastive_search"),
    ({"dola_layers": "high"}, r"dola_layers must not be given.* write dola\(...\) before"),
    ({"num_beams": 3}, "cannot run under beams"),
    ({"num_beam_groups": 2}, "num_beam_groups must not be given.* write beams"),
    ({"diversity_penalty": 0.5}, "diversity_penalty must not be given.* write beams"),
    ({"length_penalty": 2.0}, "length_penalty must not be given.* write length_target"),
    ({"early_stopping": True}, "early_stopping must not be given"),
    ({"force_words_ids": [[97]]}, "force_words_ids must not be given.* write attribute"),
    ({"constraints": ["one"]}, "constraints must not be given.* write attribute"),
    ({"low_memory": True}, "low_memory must not be given"),
    ({"prefill_chunk_size": 2}, "prefill_chunk_size must not be given"),
    ({"prompt_lookup_num_tokens": 3}, "cannot run under prompt_lookup"),
    ({"assistant_early_exit": 1}, "cannot run under assisted"),
    ({"use_mtp": True}, "cannot run under assisted"),
    ({"assistant_model": "small"}, "cannot run under assisted"),
    ({"custom_generate": print}, "custom_generate must not be given"),
    ({"synced_gpus": True}, "synced_gpus must not be given"),
    ({"guidance_scale": 1.5}, r"guidance_scale must not be set.* write cfg\(...\) before"),
    ({"repetition_penalty": 1.3}, "repetition_penalty must be a step"),
    ({"encoder_repetition_penalty": 1.3}, "encoder_repetition_penalty must not be set"),
    ({"output_scores": True}, "output_scores must not be set"),
    ({"return_dict_in_generate": True}, "return_dict_in_generate must not be set"),
]
NEUTRAL: dict[str, Any] = {"penalty_alpha": 0.0, "num_beam_groups": 1, "diversity_penalty": 0.0, "length_penalty": 1.0}
NEUTRAL |= {"early_stopping": False, "low_memory": False, "num_beams": 1, "synced_gpus": False}


def generated(name: str, model: Any = None, prompts: Any = "ab", **settings: Any) -> torch.Tensor:
    """Return the ids of a call under seed 0."""
    torch.manual_seed(0)
    call = logitkit.chain(CHAINS[name]).bind(model or tiny_model(), tiny_tokenizer(), prompts)
    return call.ids(call.generate(**{"max_new_tokens": 5, **settings}))


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("settings", "words"), REFUSED, ids=lambda part: next(iter(part)) if part else "")
def test_settings_of_other_loops_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    """No setting that asks for another way to decode is silently dropped."""
    settings = {key: tiny_model(1) if value == "small" else value for key, value in settings.items()}
    with pytest.raises(ModeError, match=f"{name}: {words}"):
        generated(name, **settings)


@pytest.mark.parametrize("name", ["smc", "beams"])
def test_neutral_settings_and_those_of_the_model_are_accepted(name: str) -> None:
    """The search replaces the loop that the model's own configuration describes, as that of BART does."""
    want = generated(name)
    assert torch.equal(generated(name, **NEUTRAL), want)
    model = copy.deepcopy(tiny_model())
    model.generation_config.length_penalty, model.generation_config.early_stopping = 2.0, True
    model.generation_config.penalty_alpha = 0.6
    assert torch.equal(generated(name, model), want)
    config = copy.deepcopy(model.generation_config)
    assert torch.equal(generated(name, model, generation_config=config), want)
    config.length_penalty = 0.5
    with pytest.raises(ModeError, match=f"{name}: length_penalty must not be given"):
        generated(name, model, generation_config=config)


@pytest.mark.parametrize("name", ["smc", "beams", "best_of"])
def test_a_bare_generate_refuses_them_too(name: str) -> None:
    call = logitkit.chain(CHAINS[name]).bind(tiny_model(), tiny_tokenizer(), "ab")
    settings: dict[str, Any] = {**call.generate_kwargs, "max_new_tokens": 2, "custom_generate": call.search}
    for given in ({"dola_layers": "low"}, {"length_penalty": 0.0}, {"force_words_ids": [[97]]}):
        with pytest.raises(ModeError, match=f"{name}: {next(iter(given))} must not be given"):
            tiny_model().generate(**call.inputs, logits_processor=call.processors, **settings, **given)


@pytest.mark.parametrize("name", CHAINS)
def test_allowed_tokens_are_those_of_the_prompt(name: str) -> None:
    """``prefix_allowed_tokens_fn`` gets the number of the prompt, however many rows of each there are."""
    letters = {0: [97, 98], 1: [120, 121, 122]}
    rows = generated(name, prompts=["ab", "another"], prefix_allowed_tokens_fn=lambda prompt, row: letters[prompt])
    assert [{*row[-5:]} <= {*letters[number]} for number, row in enumerate(rows.tolist())] == [True, True]


@pytest.mark.parametrize("name", ["smc", "beams", "rewind"])
def test_allowed_tokens_behind_an_encoder(name: str) -> None:
    letters = {0: [97, 98], 1: [120, 121, 122]}
    given: dict[str, Any] = {"prefix_allowed_tokens_fn": lambda prompt, row: letters[prompt]}
    rows = generated(name, encoder_decoder_model(), ["ab", "another"], **given)
    assert [{*row[-5:]} <= {*letters[number]} for number, row in enumerate(rows.tolist())] == [True, True]


def test_beams_with_allowed_tokens_are_those_of_transformers() -> None:
    """Constrained beam search as users know it; the probabilities are those among the allowed tokens."""
    letters = {0: [97, 98, 99], 1: [120, 121, 122]}
    given: dict[str, Any] = {"prefix_allowed_tokens_fn": lambda prompt, row: letters[prompt], "max_new_tokens": 5}
    call = logitkit.chain("beams(width=4)").bind(tiny_model(), tiny_tokenizer(), ["ab", "another"])
    settings = {"num_beams": 4, "length_penalty": 0.0, "renormalize_logits": True, "do_sample": False}
    want = tiny_model().generate(**call.inputs, **settings, **given)
    assert torch.equal(call.generate(**given), want)


@pytest.mark.parametrize("name", ["beams", "contrastive_search"])
def test_sampling_that_changes_nothing_gives_a_warning(name: str) -> None:
    """Only what the call itself says: a model whose configuration samples is searched without a word."""
    with pytest.warns(NoEffectWarning, match=f"do_sample=True changes nothing: {name} draws no token; leave it out"):
        sampled = generated(name, do_sample=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(generated(name), sampled)
        config = GenerationConfig(do_sample=True, pad_token_id=0, max_new_tokens=5)
        generated(name, generation_config=config)
        generated("goose", do_sample=True)


def test_a_static_cache_has_no_room_for_contrastive_search() -> None:
    with pytest.raises(ModeError, match="contrastive_search: cache_implementation must not be 'static'"):
        generated("contrastive_search", cache_implementation="static")
