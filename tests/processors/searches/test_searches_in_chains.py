"""Goose, beams and contrastive search behind the steps of a chain."""

from __future__ import annotations

import pytest
import torch

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
