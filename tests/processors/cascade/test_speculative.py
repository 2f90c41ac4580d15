"""Speculative cascades: the tokens and the distribution of the token-level cascade, in fewer large forwards."""

from __future__ import annotations

import collections
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from fakes import absolute_model, sliding_model
from logitkit.errors import ModeError, ModelError, ParameterError
from logitkit.processors.cascade import TOKEN_RULES, SpeculativeCascade, TokenRule, rules
from logitkit.processors.engine import Trace
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from media_models import ENCODINGS, llava, one_of


def inputs(text: str = "a prompt") -> Any:
    """Return ids and mask of one prompt."""
    return tiny_tokenizer()(text, return_tensors="pt", return_token_type_ids=False)


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.3, 1.0])
def test_greedy_text_equals_the_token_level_cascade(rule: TokenRule, alpha: float) -> None:
    """Without sampling the ids are those of the cascade processor at temperature 0, under every rule."""
    chain = f"cascade(large='big', rule='{rule}', alpha={alpha}, temperature=0.0)"
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "a prompt", big=tiny_model(1))
    want = call.generate(max_new_tokens=14, do_sample=False)
    cascade = SpeculativeCascade(large=tiny_model(1), rule=rule, alpha=alpha, draft_length=3)
    got = tiny_model().generate(**inputs(), custom_generate=cascade, max_new_tokens=14, do_sample=False)
    assert torch.equal(got, want)


@pytest.mark.parametrize("make", [tiny_model, absolute_model, sliding_model])
@pytest.mark.parametrize("draft_length", [1, 4, 9])
def test_alpha_zero_gives_the_large_models_greedy_text(make: Any, draft_length: int) -> None:
    """token_v3 at alpha 0 is lossless for every draft length and architecture, with padded prompts too."""
    padded = {key: torch.nn.functional.pad(value, (3, 0)) for key, value in inputs().items()}
    cascade = SpeculativeCascade(large=make(1), rule="token_v3", alpha=0.0, draft_length=draft_length)
    got = make().generate(**padded, custom_generate=cascade, max_new_tokens=16, do_sample=False)
    assert torch.equal(got, make(1).generate(**padded, max_new_tokens=16, do_sample=False))


def test_the_same_model_accepts_every_draft() -> None:
    """With one model as small and large, each large forward emits draft_length + 1 tokens, the last one fewer."""
    trace = Trace()
    cascade = SpeculativeCascade(large=tiny_model(), rule="token_v3", alpha=0.0, draft_length=4, trace=trace)
    got = tiny_model().generate(
        **inputs("abc"), custom_generate=cascade, max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    assert got.shape[1] == 3 + 12
    assert trace.means["speculative"]["accepted"] == 1.0
    assert trace.forwards["large"] == 3  # 5 + 5 + 2


FIRST, LAST = 65, 68  # the tokens that `OnlyThree` leaves possible


class OnlyThree:
    """A logits processor that leaves three tokens possible."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[:, FIRST:LAST] = scores[:, FIRST:LAST]
        return kept


@torch.no_grad()
def next_token_distributions(ids: Tensor, rule: TokenRule, alpha: float) -> Tensor:
    """Return log pi after these ids, ``[1, vocab]``; tokens are drawn from three possible tokens only."""
    own = [model(ids).logits[:, -1].double().log_softmax(-1) for model in (tiny_model(), tiny_model(1))]
    sampling = [OnlyThree()(ids, logp).log_softmax(-1) for logp in own]
    return rules.cascade_distribution(rule, *own, alpha=alpha, sampling_small=sampling[0], sampling_large=sampling[1])


@pytest.mark.parametrize(("rule", "alpha"), [("token_v3", 0.3), ("diff", 0.01)])
def test_samples_follow_pi(rule: TokenRule, alpha: float) -> None:
    """A chi-square test compares 500 samples of two tokens with the enumerated distribution of the cascade.

    There are 9 texts and 8 degrees of freedom; the statistic must be below 26.1.
    """
    start = inputs()["input_ids"]
    expected: dict[tuple[int, ...], float] = {}
    for text in itertools.product(range(FIRST, LAST), repeat=2):
        ids, expected[text] = start, 1.0
        for token in text:
            expected[text] *= float(next_token_distributions(ids, rule, alpha)[0, token].exp())
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert sum(expected.values()) == pytest.approx(1, abs=1e-9)
    torch.manual_seed(0)
    counts: collections.Counter[tuple[int, ...]] = collections.Counter()
    cascade = SpeculativeCascade(large=tiny_model(1), rule=rule, alpha=alpha, draft_length=2)
    for _ in range(500):
        out = tiny_model().generate(
            start,
            attention_mask=torch.ones_like(start),
            custom_generate=cascade,
            logits_processor=[OnlyThree()],
            max_new_tokens=2,
            do_sample=True,
            top_k=0,
        )
        counts[tuple(out[0, -2:].tolist())] += 1
    statistic = sum((counts[text] - 500 * share) ** 2 / (500 * share) for text, share in expected.items())
    assert statistic < 26.1


def test_generation_stops_where_generate_stops() -> None:
    """Generation stops at an end token inside a block of drafts, and at max_new_tokens."""
    greedy = tiny_model(1).generate(**inputs(), max_new_tokens=10, do_sample=False)
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": int(greedy[0, -4])}
    cascade = SpeculativeCascade(large=tiny_model(1), rule="token_v3", alpha=0.0, draft_length=4)
    got = tiny_model().generate(**inputs(), custom_generate=cascade, **settings)
    assert torch.equal(got, tiny_model(1).generate(**inputs(), **settings))


def test_unsupported_modes_are_refused() -> None:
    """Several rows and output objects raise a ModeError."""
    cascade = SpeculativeCascade(large=tiny_model(1))
    two = tiny_tokenizer()(["ab", "cd"], return_tensors="pt", return_token_type_ids=False)
    for arguments, message in [
        ({**two}, "rows must be 1"),
        ({**inputs(), "num_return_sequences": 2, "do_sample": True}, "rows must be 1"),
        ({**inputs(), "return_dict_in_generate": True}, "return_dict_in_generate must be off"),
    ]:
        with pytest.raises(ModeError, match=message):
            tiny_model().generate(**arguments, custom_generate=cascade, max_new_tokens=2)


def test_bad_parameters_are_refused() -> None:
    """A draft length of 0 and a model with another vocabulary raise an error."""
    with pytest.raises(ParameterError, match="SpeculativeCascade: draft_length must be a whole number >= 1, got 0"):
        SpeculativeCascade(large=tiny_model(1), draft_length=0)

    class Wide:
        class config:  # noqa: N801
            @staticmethod
            def get_text_config(decoder: bool) -> Any:
                return type("Config", (), {"vocab_size": 9})

    with pytest.raises(ModelError, match=r"must have the vocabulary of the generating model .* byte models"):
        tiny_model().generate(**inputs(), custom_generate=SpeculativeCascade(large=Wide()), max_new_tokens=2)


@pytest.mark.parametrize(("name", "got"), [("pixel_values", "images or videos"), ("position_ids", "position_ids")])
def test_inputs_besides_tokens_are_refused(name: str, got: str) -> None:
    """Neither the small nor the large model would read them; positions that follow from the mask are no input."""
    given = one_of(ENCODINGS["llava"][1](), 0)
    given["position_ids"] = torch.arange(3, 3 + given["input_ids"].shape[1])[None]
    kept = {key: given[key] for key in ("input_ids", "attention_mask", name)}
    cascade = SpeculativeCascade(large=llava(1), alpha=0.0)
    with pytest.raises(ModeError, match=f"SpeculativeCascade: inputs must be tokens alone, got also {got}"):
        llava(0).generate(**kept, custom_generate=cascade, max_new_tokens=2, do_sample=False)
    text = tiny_tokenizer()("a fox", return_tensors="pt", return_token_type_ids=False)
    llava(0).generate(**text, custom_generate=cascade, max_new_tokens=2, do_sample=False)
