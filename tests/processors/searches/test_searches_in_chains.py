"""Goose, beams and contrastive search behind the steps of a chain."""

from __future__ import annotations

import pytest
import torch
from tests.fakes import seeded
from transformers import MambaConfig, MambaForCausalLM

import logitkit
from logitkit.errors import ModeError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

PROMPTS = ["a prompt", "the other prompt", "x"]


def texts(chain: str, prompts: list[str] | str = PROMPTS, **settings: object) -> list[str]:
    torch.manual_seed(3)
    return logitkit.generate(tiny_model(), tiny_tokenizer(), prompts, chain, max_new_tokens=8, **settings).texts


@pytest.mark.parametrize(
    "steps", ["cfg(1.5)", "ban_phrases(['a', 'e'])", "mirostat(tau=3.0)", "frequency_penalty(1.0)"]
)
def test_goose_is_lossless_behind_steps(steps: str) -> None:
    """Second streams, constraints, controllers and penalties: the tokens are those of one row a prompt."""
    for sampling in (False, True):
        plain = texts(f"{steps} | best_of(n=1)", do_sample=sampling)
        assert texts(f"{steps} | goose(budget=12)", do_sample=sampling) == plain


def test_goose_samples_where_generate_does() -> None:
    """Without do_sample, the configuration of the model decides, as in plain decoding."""
    assert texts("goose(budget=8)") == texts("") == texts("", do_sample=False)
    assert texts("goose(budget=8)", do_sample=True) != texts("goose(budget=8)")
    assert len(texts("goose(budget=8)", "ab", do_sample=True, num_return_sequences=3)) == 3


def test_an_attribute_makes_beams_conditional() -> None:
    """A phrase that must occur does; the scores add up as they do under the beams of transformers."""
    chain = "attribute({'contains': ['ca']}, strength=9.0, top=272)"
    found = texts(f"{chain} | beams(width=6)", "The")
    assert "ca" in found[0]
    assert found == texts(chain, "The", num_beams=6, length_penalty=0.0, do_sample=False)
    with pytest.raises(ModeError, match=r"write top_p\(\.\.\.\) \| attribute\(\.\.\.\) \| beams"):
        texts("attribute({'length': 4}) | top_p(0.9) | beams(width=2)")


def test_beams_of_an_encoder_decoder() -> None:
    """The best text is that of transformers."""
    settings = {"max_new_tokens": 6, "do_sample": False}
    got = logitkit.generate(encoder_decoder_model(), tiny_tokenizer(), PROMPTS, "beams(width=3)", max_new_tokens=6)
    want = logitkit.generate(
        encoder_decoder_model(), tiny_tokenizer(), PROMPTS, num_beams=3, length_penalty=0.0, **settings
    )
    assert got.texts == want.texts


def test_beams_that_are_no_texts_have_weight_zero() -> None:
    """Two texts are possible, so two of four beams are none: they count nothing, and come last behind a selector."""
    call = logitkit.chain("choices(['yes', 'no']) | beams(width=4)").bind(tiny_model(), tiny_tokenizer(), "Is it?")
    found = call.texts(call.generate(max_new_tokens=8, num_return_sequences=4))
    assert sorted(found[:2]) == ["no", "yes"]
    assert call.search is not None and call.search.log_weights is not None
    weights = call.search.log_weights[0].exp().tolist()
    assert weights[0] > weights[1] > 0 and weights[2:] == [0.0, 0.0] and abs(sum(weights) - 1) < 1e-9


@pytest.mark.parametrize(
    "search", ["adadec(1.0, top=2, depth=2)", "adadec(2.0, top=3, depth=3)", "rewind(['e ', 'ab'])"]
)
@pytest.mark.parametrize("step", ["cfg(1.5)", "contrastive(amateur='small')"])
def test_some_rows_of_an_encoder_decoder_keep_their_prompts(step: str, search: str) -> None:
    """Streams know which encoder prompt a row has by its place: rows of a batch are those of each prompt alone."""
    model, prompts = encoder_decoder_model(), ["The sea", "A hill on the other side", "xyz"]
    given = {"small": encoder_decoder_model(3)} if "small" in step else {}

    def written(prompts: list[str]) -> list[str]:
        call = logitkit.chain(f"{step} | {search}").bind(model, tiny_tokenizer(), prompts, **given)
        return call.texts(call.generate(max_new_tokens=12))

    assert written(prompts) == [text for prompt in prompts for text in written([prompt])]


@pytest.mark.parametrize(
    "search", ["smc(3)", "beams(4, groups=2)", "contrastive_search()", "adadec(1.0)", "rewind(['e '])"]
)
def test_mamba(search: str) -> None:
    """The state of Mamba follows its rows: the tokens are those of forwards over whole rows."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    special = {name: getattr(tiny_tokenizer(), name) for name in names}
    sizes = {"vocab_size": 272, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "initializer_range": 0.3}
    model = seeded(lambda: MambaForCausalLM(MambaConfig(**sizes, **special)), 0)

    def written(**settings: object) -> list[str]:
        torch.manual_seed(0)
        call = logitkit.chain(search).bind(model, tiny_tokenizer(), ["The sea", "A hilla"])
        return call.texts(call.generate(max_new_tokens=8, **settings))

    assert written() == written(use_cache=False)


@pytest.mark.parametrize(
    "setting", [{"encoder_repetition_penalty": 2.0}, {"encoder_no_repeat_ngram_size": 2}, {"guidance_scale": 1.5}]
)
@pytest.mark.parametrize("search", ["smc(3)", "goose(8)", "rewind(['e '])", "best_of(n=2)"])
def test_processors_that_know_prompts_by_place_are_refused(search: str, setting: dict[str, float]) -> None:
    name = next(iter(setting))
    with pytest.raises(ModeError, match=f"{name} must not be set, since it knows the prompt of a row by its place"):
        texts(search, **setting)
