"""Sampling of continuations: pinned settings, one seed per row, and stop texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from logitkit.bench.execution import GumbelNoise, continue_prompts, pinned_settings, seed_of
from logitkit.bench.execution.sampling import SearchStops, StopAtText, before_stop
from logitkit.errors import ModelError
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_samples_follow_the_softmax() -> None:
    """20 000 seeds sample four tokens, one impossible, by their probabilities; false-alarm rate 1 in 10 000."""
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    draw = GumbelNoise([seed_of(0, n) for n in range(20_000)], width=1)
    tokens = draw(torch.zeros(20_000, 1, dtype=torch.long), logits.expand(20_000, 4)).argmax(-1)
    counts = torch.bincount(tokens, minlength=4).tolist()
    assert counts[3] == 0
    assert chisquare(counts[:3], (logits[:3].softmax(-1) * 20_000).tolist()).pvalue > 1e-4


def test_noise_is_a_function_of_seed_and_position() -> None:
    """The noise does not depend on the place of the row in the batch, on earlier calls, or on torch's own seed."""
    scores = torch.zeros(2, 9)
    ids = torch.zeros(2, 5, dtype=torch.long)
    first = GumbelNoise([7, 8], width=3)(ids, scores)
    torch.manual_seed(99)
    swapped = GumbelNoise([8, 7], width=3)(ids, scores)
    assert torch.equal(first, swapped.flip(0))
    assert not torch.equal(first, GumbelNoise([7, 8], width=3)(ids[:, :4], scores))
    assert not torch.equal(first[0], first[1])


def test_text_before_the_first_stop() -> None:
    """A text is cut before the earliest of its stop texts, whatever their order."""
    assert (
        before_stop("a\nb\ndef c", ("\ndef", "\nb")) == "a"
        and before_stop("abc", ("x",)) == "abc"
        and before_stop("abc", ()) == "abc"
    )


def continuations(model: Any, **settings: Any) -> list[tuple[str, list[int]]]:
    """Continue two prompts under a chain."""
    with pinned_settings(model):
        call = Chain("cfg(1.2)").bind(model, tiny_tokenizer(), ["a prompt", "two"])
        return continue_prompts(call, **{"max_new_tokens": 12, **settings})


@pytest.mark.parametrize("seeds", [None, [1, 2]])
def test_nothing_of_the_checkpoint_leaks_in(seeds: Any) -> None:
    """Penalties, beams, warpers and forced tokens of the checkpoint's generation config have no effect."""
    model = tiny_model(3)
    want = continuations(model, seeds=seeds)
    own = model.generation_config
    leaky = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_new_tokens": 12, "num_beams": 3}
    leaky |= {"do_sample": True, "temperature": 3.0, "top_k": 2, "suppress_tokens": [want[0][1][0]], "max_length": 9}
    tokens = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**leaky, **tokens)
    try:
        assert continuations(model, seeds=seeds) == want
        assert model.generation_config.top_k == 2
    finally:
        model.generation_config = own


def test_a_row_ends_at_its_stop() -> None:
    """A row ends before its stop text and is not generated further; the other row continues."""
    model = tiny_model(0)
    (text, ids), (other, rest) = continuations(model)
    stop = text[4:6]
    (short, kept), (same, more) = continuations(model, stops=[(stop,), ()])
    assert short == text.partition(stop)[0] and (same, more) == (other, rest)
    assert kept == ids[: len(kept)] and len(kept) < len(ids)


@pytest.mark.parametrize("criterion", [StopAtText, SearchStops])
def test_a_stop_late_in_a_long_text_ends_its_row(criterion: Any) -> None:
    """At the token at which the whole text first has a stop, though only the last tokens are decoded."""
    with pinned_settings(tiny_model()):
        call = Chain().bind(tiny_model(), tiny_tokenizer(), ["a prompt", "two"])
    letters = random.Random(1)
    text = "".join(letters.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(200))
    new = torch.tensor(tiny_tokenizer()([text, text], add_special_tokens=False).input_ids)
    stops = [(text[150:153], text[180:183]), ("@",)]
    stopping = criterion(call, stops)
    ended = [stopping(torch.cat([call.prompts.ids, new[:, :length]], dim=1), None).tolist() for length in range(1, 201)]
    assert not any(second for _, second in ended)
    assert [first for first, _ in ended].index(True) + 1 == text.find(stops[0][0]) + 3 == 153


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    """A prompt and continuation beyond the context length are refused before generation."""
    model = tiny_model(0)
    with pinned_settings(model), pytest.raises(ModelError, match="must fit the model's 512 tokens, got 600 and 12"):
        continue_prompts(Chain().bind(model, tiny_tokenizer(), "a" * 600), max_new_tokens=12)


@pytest.mark.parametrize("chain", ["", "byte_boundary()", "temperature(0.5) | cfg(1.5)"])
def test_a_real_model_writes_what_generate_writes(smollm2: Any, chain: str, tmp_path: Path) -> None:
    """Greedy continuations without stop texts equal those of `logitkit.generate` with the settings pinned by hand."""
    import logitkit

    model, tokenizer = smollm2
    prompts = ["The capital of France is Pari", "Once upon a ti"]
    settings = {"do_sample": False, "max_new_tokens": 8, "repetition_penalty": 1.0}
    want = logitkit.generate(model, tokenizer, prompts, chain=chain, **settings).texts
    with pinned_settings(model):
        got = continue_prompts(Chain(chain).bind(model, tokenizer, prompts), max_new_tokens=8)
    assert [text for text, _ in got] == want
