"""Log-probabilities under a chain, compared with a computation from scratch for every prefix."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import logitkit
from fakes import encoder_decoder_model
from logitkit.errors import ModelError, ParameterError
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.examples import example_of
from logitkit.registry.scoring import continuation_tokens, score, score_tokens

OPTIONS = [" ship", " a", " harbours"]


def slowly(chain: Chain, model: Any, tokenizer: Any, prompt: str, option: str, **bound: Any) -> list[float]:
    """Score a text from scratch: for each token a new call, a forward over the whole prefix, and a log-softmax."""
    ids = continuation_tokens(chain.bind(model, tokenizer, prompt, **bound), 0, option)
    found = []
    for place, token in enumerate(ids):
        call = chain.bind(model, tokenizer, prompt, **bound)
        row = torch.cat([call.prompts.ids, torch.tensor([ids[:place]], dtype=torch.long)], dim=1)
        with torch.no_grad():
            scores = model(input_ids=row).logits[:, -1].float()
        found.append(float(call.composite(row, scores).double().log_softmax(-1)[0, token]))
    return found


def bound_to(name: str) -> tuple[Chain, Any, Any, dict[str, Any]]:
    """Return the example of a registered processor, and the objects to bind the example to."""
    spec = logitkit.describe(name)
    example = "uscd(gate=1.0, lame='a lame prompt')" if name == "uscd" else spec.example  # one text for any batch
    bound = example_of(dataclasses.replace(spec, example=example))
    return bound.chain, bound.model, bound.tokenizer, {"tokenizers": bound.tokenizers, **bound.resources}


@pytest.mark.parametrize("name", logitkit.names())
def test_every_processor_scores_as_prefix_by_prefix(name: str) -> None:
    """For each registered processor, scores of texts of unequal length equal those from scratch."""
    chain, model, tokenizer, bound = bound_to(name)
    tokenizers = bound.pop("tokenizers")
    prompt = "a prompt, another prompt and another on"
    scored, _ = score(chain, model, tokenizer, prompt, OPTIONS, resources=bound, tokenizers=tokenizers)
    for option, one in zip(OPTIONS, scored, strict=True):
        want = slowly(chain, model, tokenizer, prompt, option, tokenizers=tokenizers, **bound)
        assert list(one.logp) == pytest.approx(want, abs=2e-4, nan_ok=False)


def test_a_worked_example() -> None:
    """Under an empty chain, scores are the log-softmax of the model's logits."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    (one,), _ = score(Chain(), model, tokenizer, "ab", ["cd"])
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer("abcd")["input_ids"]])).logits[0, 1:3].double()
    ids = tokenizer("cd")["input_ids"]
    assert list(one.logp) == pytest.approx([float(logits[n].log_softmax(-1)[ids[n]]) for n in (0, 1)], abs=1e-5)
    assert list(one.greedy) == [int(logits[n].argmax()) == ids[n] for n in (0, 1)] and one.bytes == 2


def test_second_streams_read_a_text_once() -> None:
    """The negative prompt of cfg is read in one forward for all tokens of all texts."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    _, call = score(Chain("cfg(1.5)"), model, tokenizer, "a prompt", [" harbour", " ship"])
    assert call.trace.forwards == {"negative prompt": 1}


def test_an_impossible_token_has_no_probability() -> None:
    """An impossible token has log-probability -inf, and the other tokens of the text keep theirs."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    banned = tokenizer("h")["input_ids"]
    (one,), _ = score(Chain(f"suppress_tokens({banned})"), model, tokenizer, "a ", ["ship"])
    assert [value == -float("inf") for value in one.logp] == [False, True, False, False]


def test_a_text_that_does_not_fit_is_refused() -> None:
    """A text longer than the context of the model is refused before the model reads it."""
    with pytest.raises(ModelError, match="must fit the model's 512 tokens, got 600"):
        score(Chain(), tiny_model(), tiny_tokenizer(), "a" * 598, ["bc"])


@pytest.mark.parametrize("chain", ["cfg(1.5)", "uscd(gate=1.0)", "byte_boundary()", "top_p(0.9)"])
def test_real_text_scores_as_prefix_by_prefix(smollm2: Any, chain: str) -> None:
    """On a real model and a prompt that ends inside a token, scores equal those from scratch."""
    model, tokenizer = smollm2
    prompt, options = "Q: 1+1?\nA: 2\n\nQ: What is the capital of Fra", ["nce?", "nconia"]
    scored, _ = score(Chain(chain), model, tokenizer, prompt, options)
    for option, one in zip(options, scored, strict=True):
        assert list(one.logp) == pytest.approx(slowly(Chain(chain), model, tokenizer, prompt, option), abs=2e-3)


def test_prompts_of_unequal_length_are_scored_as_alone() -> None:
    """Padding and rows of unequal length do not change the scores of the model or of a second stream."""
    model, tokenizer, chain = tiny_model(), tiny_tokenizer(), logitkit.chain("cfg(1.7)")
    prompts, rows = ["a", "another prompt"], [[5, 6, 7, 8], [9]]
    together = score_tokens(chain.bind(model, tokenizer, prompts), rows)
    for prompt, row, found in zip(prompts, rows, together, strict=True):
        (alone,) = score_tokens(chain.bind(model, tokenizer, prompt), [row])
        assert [greedy for _, greedy in found] == [greedy for _, greedy in alone]
        assert [logp for logp, _ in found] == pytest.approx([logp for logp, _ in alone], abs=1e-5)


def test_score_from_the_top() -> None:
    """One prompt for all continuations, or one for each; a single continuation may be given as text."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    shared = logitkit.score(model, tokenizer, "ab", ["cd", "e"], chain="cfg(1.5)")
    each = logitkit.score(model, tokenizer, ["ab", "ab"], ["cd", "e"], chain=logitkit.chain("cfg(1.5)"))
    (alone,) = logitkit.score(model, tokenizer, "ab", "cd", chain="cfg(1.5)")
    assert [one.logp for one in shared] == [one.logp for one in each]
    assert alone.total == pytest.approx(shared[0].total, abs=1e-5)


@pytest.mark.parametrize(
    ("prompts", "continuations", "says"),
    [
        ("ab", [], "continuations must be one or more texts, none empty"),
        ("ab", ["c", ""], "continuations must be one or more texts, none empty"),
        (["ab", "c"], ["d"], "prompts must be one text or chat, or one for each of the 1 continuations, got 2"),
    ],
)
def test_texts_that_cannot_be_scored(prompts: Any, continuations: list[str], says: str) -> None:
    """An empty continuation has no tokens; prompts and continuations must pair up."""
    with pytest.raises(ParameterError, match=f"score: {says}"):
        logitkit.score(tiny_model(), tiny_tokenizer(), prompts, continuations)


def test_scoring_needs_a_decoder_only_model() -> None:
    """An encoder-decoder model is refused by name."""
    with pytest.raises(ModelError, match="score: the model must be decoder-only"):
        logitkit.score(encoder_decoder_model(), tiny_tokenizer(), "ab", "c")
