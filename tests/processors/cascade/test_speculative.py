"""Speculative cascades: the tokens and the law of the cascade token by token, in fewer large forwards."""

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
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade.rules import TOKEN_RULES, TokenRule
from logitkit.processors.cascade.speculative import SpeculativeCascade
from logitkit.processors.engine.trace import Trace
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def inputs(text: str = "a prompt") -> Any:
    """One prompt."""
    return tiny_tokenizer()(text, return_tensors="pt", return_token_type_ids=False)


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.3, 1.0])
def test_greedy_is_the_cascade_token_by_token(rule: TokenRule, alpha: float) -> None:
    """The ids of the processor at temperature 0, under every rule."""
    chain = f"cascade(large='big', rule='{rule}', alpha={alpha}, temperature=0.0)"
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "a prompt", big=tiny_model(1))
    want = call.generate(max_new_tokens=14, do_sample=False)
    way = SpeculativeCascade(large=tiny_model(1), rule=rule, alpha=alpha, draft=3)
    got = tiny_model().generate(**inputs(), custom_generate=way, max_new_tokens=14, do_sample=False)
    assert torch.equal(got, want)


@pytest.mark.parametrize("make", [tiny_model, absolute_model, sliding_model])
@pytest.mark.parametrize("draft", [1, 4, 9])
def test_no_trust_is_the_large_models_own_greedy_text(make: Any, draft: int) -> None:
    """token_v3 at alpha = 0: lossless, for any draft length and architecture, padded prompts too."""
    padded = {key: torch.nn.functional.pad(value, (3, 0)) for key, value in inputs().items()}
    way = SpeculativeCascade(large=make(1), rule="token_v3", alpha=0.0, draft=draft)
    got = make().generate(**padded, custom_generate=way, max_new_tokens=16, do_sample=False)
    assert torch.equal(got, make(1).generate(**padded, max_new_tokens=16, do_sample=False))


def test_the_same_model_accepts_every_draft() -> None:
    """Large = small: draft + 1 tokens for each large forward, the last one shorter."""
    trace = Trace()
    way = SpeculativeCascade(large=tiny_model(), rule="token_v3", alpha=0.0, draft=4, trace=trace)
    got = tiny_model().generate(
        **inputs("abc"), custom_generate=way, max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    assert got.shape[1] == 3 + 12
    assert trace.means["speculative"]["accepted"] == 1.0
    assert trace.forwards["large"] == 3  # 5 + 5 + 2


def three_token_law(model: Any, ids: Tensor) -> Tensor:
    """The law of a model on the three tokens that the test leaves possible."""
    with torch.no_grad():
        return model(ids).logits[0, -1, [65, 66, 67]].double().log_softmax(-1)


class OnlyThree:
    """Leaves three tokens possible."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[:, 65:68] = scores[:, 65:68]
        return kept


@pytest.mark.parametrize(("rule", "alpha"), [("token_v3", 0.3), ("diff", 0.01)])
def test_samples_follow_pi(rule: TokenRule, alpha: float) -> None:
    """500 samples of two tokens against the enumerated law of the cascade: chi-square, false alarm 0.001.

    9 texts, 8 degrees of freedom: below 26.1. The rule judges the models' own laws, the draws have three tokens.
    """
    small, large, start = tiny_model(), tiny_model(1), inputs()["input_ids"]
    chance: dict[tuple[int, ...], float] = {}
    for text in itertools.product(range(3), repeat=2):
        ids, total = start, 1.0
        for token in text:
            q, p = three_token_law(small, ids)[None], three_token_law(large, ids)[None]
            with torch.no_grad():
                own = [m(ids).logits[:, -1].double().log_softmax(-1) for m in (small, large)]
            wide = [torch.full_like(own[0], -torch.inf) for _ in range(2)]
            for law, row in zip(wide, (q, p), strict=True):
                law[:, 65:68] = row
            pi = deferral.token_law(rule, *own, alpha=alpha, drawn_small=wide[0], drawn_large=wide[1])
            total *= float(pi[0, 65 + token].exp())
            ids = torch.cat([ids, torch.tensor([[65 + token]])], dim=1)
        chance[text] = total
    assert sum(chance.values()) == pytest.approx(1, abs=1e-9)
    torch.manual_seed(0)
    seen: collections.Counter[tuple[int, ...]] = collections.Counter()
    way = SpeculativeCascade(large=large, rule=rule, alpha=alpha, draft=2)
    for _ in range(500):
        out = small.generate(
            start,
            attention_mask=torch.ones_like(start),
            custom_generate=way,
            logits_processor=[OnlyThree()],
            max_new_tokens=2,
            do_sample=True,
            top_k=0,
        )
        seen[tuple(int(token) - 65 for token in out[0, -2:])] += 1
    statistic = sum((seen[text] - 500 * share) ** 2 / (500 * share) for text, share in chance.items())
    assert statistic < 26.1


def test_it_stops_where_generate_stops() -> None:
    """At an end token inside a block, and at max_new_tokens exactly."""
    want = tiny_model(1).generate(**inputs(), max_new_tokens=10, do_sample=False)
    end = int(want[0, -4])
    way = SpeculativeCascade(large=tiny_model(1), rule="token_v3", alpha=0.0, draft=4)
    got = tiny_model().generate(**inputs(), custom_generate=way, max_new_tokens=10, do_sample=False, eos_token_id=end)
    assert torch.equal(got, tiny_model(1).generate(**inputs(), max_new_tokens=10, do_sample=False, eos_token_id=end))


def test_bad_input() -> None:
    """Batches, beams, output objects, other vocabularies, ranges."""
    way = SpeculativeCascade(large=tiny_model(1))
    two = tiny_tokenizer()(["ab", "cd"], return_tensors="pt", return_token_type_ids=False)
    for given, says in [
        ({**two}, "rows must be 1"),
        ({**inputs(), "num_return_sequences": 2, "do_sample": True}, "rows must be 1"),
        ({**inputs(), "return_dict_in_generate": True}, "return_dict_in_generate must be off"),
    ]:
        with pytest.raises(ModeError, match=says):
            tiny_model().generate(**given, custom_generate=way, max_new_tokens=2)
    with pytest.raises(ParameterError, match="SpeculativeCascade: draft must be a whole number >= 1, got 0"):
        SpeculativeCascade(large=tiny_model(1), draft=0)

    class Wide:
        class config:  # noqa: N801
            @staticmethod
            def get_text_config(decoder: bool) -> Any:
                return type("Config", (), {"vocab_size": 9})

    with pytest.raises(ModelError, match=r"must have the vocabulary of the generating model .* byte models"):
        tiny_model().generate(**inputs(), custom_generate=SpeculativeCascade(large=Wide()), max_new_tokens=2)
