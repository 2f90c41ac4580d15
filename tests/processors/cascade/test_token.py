"""The cascade as a processor: rules by hand, equal to recomputation, asked only where it must be."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import logitkit
from logitkit.errors import ChainError, ModelError, ParameterError
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade.token import Cascade, Rule
from logitkit.processors.engine.prefix_random import PrefixRandom
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.recompute import Recompute
from reference.speculation import by_hand

INF = torch.inf
RULES = get_args(Rule)
PROMPTS = ["one prompt", "a second, longer prompt", "three"]
# At these values the tiny models, whose likeliest token has some 0.1, defer now and then.
ALPHA = {"chow": 0.9, "diff": 0.03, "opt": 0.1, "token_v1": 0.02, "token_v2": 0.02, "js": 0.6, "random": 0.5}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 3},
    "several": {"do_sample": True, "num_return_sequences": 2, "top_k": 0},
}


def chain(rule: str, **more: Any) -> str:
    """The chain of one rule, with an alpha at which both models have a say."""
    given = {"large": "big", "rule": rule, "alpha": ALPHA.get(rule, 0.3)} | more
    return f"cascade({', '.join(f'{key}={value!r}' for key, value in given.items())})"


def bound(text: str, prompts: Any = PROMPTS, **more: Any) -> Any:
    """The chain on a small and a large tiny model."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, big=tiny_model(1), **more)


class Slow:
    """The cascade with every prefix of the large model read from scratch; compares every step, row by row."""

    def __init__(self, call: Any) -> None:
        self.fast = call.composite.parts[0][1]
        own = [call.prompts.tokens(n) for n in range(len(call.prompts))]
        self.large, self.prompts = Recompute(tiny_model(1), own, call.prompts.ids), call.prompts
        self.worst = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        fast = self.fast(input_ids, scores).log_softmax(-1).exp()
        large = self.large(input_ids).masked_fill(scores == -INF, -INF).double().log_softmax(-1)
        small = scores.double().log_softmax(-1)
        chance = PrefixRandom(prompts=self.prompts)
        for row in range(len(scores)):
            q, p = small[row], large[row]
            alpha, rule = self.fast.alpha, self.fast.rule
            if rule == "random":
                want = q.exp() if float(chance(input_ids)[row]) < alpha else p.exp()
            elif rule == "js":
                want = deferral.token_law("js", q[None], p[None], alpha=alpha)[0].exp()
            else:
                laws = [x.exp().tolist() for x in (q, p, q, p)]
                want = torch.tensor(by_hand(rule, laws[0], laws[1], alpha, laws[2], laws[3]))
            self.worst = max(self.worst, float((want - fast[row].double()).abs().max()))
        return self.fast(input_ids, scores)


CASES = [(rule, "sampling") for rule in RULES] + [("token_v3", mode) for mode in MODES if mode != "sampling"]


@pytest.mark.parametrize(("rule", "mode"), CASES)
def test_equals_recomputation_in_every_mode(rule: str, mode: str) -> None:
    """Probabilities within 1e-4 of the equations on prefixes read from scratch: padding, beams, samples."""
    call = bound(chain(rule))
    slow = Slow(call)
    torch.manual_seed(0)
    tiny_model().generate(
        **call.inputs, logits_processor=[slow], **({"max_new_tokens": 6, "do_sample": False} | MODES[mode])
    )
    assert slow.worst < 1e-4
    means = call.trace.means["cascade"]
    assert 0 < means["deferral"] < 1, "the test should see both models speak"


@pytest.mark.parametrize("mode", ["assistant_model", "prompt_lookup_num_tokens"])
def test_equals_plain_greedy_under_assisted_decoding(mode: str) -> None:
    """Prefixes are rewound and the draft model asks too; the tokens are those of plain greedy."""
    helper = {mode: tiny_model(2) if mode == "assistant_model" else 3}
    want = bound(chain("chow"), "abcabcabc").generate(max_new_tokens=12, do_sample=False)
    got = bound(chain("chow"), "abcabcabc").generate(max_new_tokens=12, do_sample=False, **helper)
    assert torch.equal(got, want)


def variant(rule: str) -> Any:
    """The registered Spec with another rule in its example."""
    name = f"cascade_{rule}"
    return dataclasses.replace(
        logitkit.describe("cascade"), name=name, example=f"{name}(large='other', rule='{rule}', alpha=0.4)"
    )


@parametrize_with_laws([variant(rule) for rule in ("chow", "token_v1", "random")])
def test_every_rule_keeps_the_laws(check: Callable[[], None]) -> None:
    """Not the registered example alone."""
    check()


def test_worked_example() -> None:
    """q = (.6, .4), p = (.2, .8), token_v3 at .5: A = {1}, pi = (.6 x .2, .4 + .6 x .8)."""
    scores = torch.tensor([[0.6, 0.4]]).log()
    large = torch.tensor([[0.2, 0.8]]).log()
    got = Cascade(large=lambda _: large, rule="token_v3", alpha=0.5)(torch.zeros(1, 3).long(), scores)
    torch.testing.assert_close(got.exp(), torch.tensor([[0.12, 0.88]]))


def test_a_small_only_rule_asks_where_it_defers_and_catches_up_in_one_chunk() -> None:
    """chow at a step where no row is unsure: no large forward; else one, of all tokens since the last."""
    call = bound(chain("chow", alpha=0.9), "one prompt")
    model, reader = tiny_model(), call.composite.parts[0][1].large
    asked: list[bool] = []

    def watch(input_ids: Tensor, scores: Tensor) -> Tensor:
        asked.append(float(scores.softmax(-1).max()) < 0.1)
        return scores

    model.generate(**call.inputs, logits_processor=[watch, *call.processors], max_new_tokens=24, do_sample=False)
    assert 0 < sum(asked) < 24
    assert reader.forwards == sum(asked)
    assert reader.tokens == call.prompts.width + max(step for step, was in enumerate(asked) if was)
    assert call.trace.means["cascade"]["asked"] == pytest.approx(sum(asked) / len(asked))


def test_the_trace_says_what_it_cost() -> None:
    """Deferral, acceptance, large forwards, and the parameters that a token activates on average."""
    call = bound(chain("chow", alpha=0.0), trace=True)
    call.generate(max_new_tokens=4, do_sample=False)
    sizes = [model.num_parameters() for model in (tiny_model(), tiny_model(1))]
    told = call.trace.summary()
    assert told["means"]["cascade"]["activated parameters"] == sum(sizes)
    assert told["means"]["cascade"]["deferral"] == pytest.approx(1) and told["forwards"]["big"] == 4
    assert 0 < told["means"]["cascade"]["acceptance"] < 1
    assert set(call.trace.steps[0].notes) == {"deferred", "accepted"}


@pytest.mark.parametrize("rule", ["chow", "token_v2", "token_v3"])
def test_no_trust_is_the_large_model(rule: str) -> None:
    """alpha = 0 with greedy laws: the tokens of the large model alone."""
    call = bound(chain(rule, alpha=0.0, temperature=0.0))
    got = call.generate(max_new_tokens=8, do_sample=False)
    assert torch.equal(got, tiny_model(1).generate(**call.inputs, max_new_tokens=8, do_sample=False))


def test_bad_input_is_refused_before_any_model_runs() -> None:
    """Ranges, another tokenizer, a chain whose earlier part would be lost, pickling."""
    with pytest.raises(ParameterError, match=r"cascade: alpha must be a finite number >= 0 and <= 1, got 1\.5"):
        logitkit.chain("cascade(large='big', alpha=1.5)")
    with pytest.raises(ParameterError, match="cascade: rule must be one of 'chow'"):
        logitkit.chain("cascade(large='big', rule='chou')")
    with pytest.raises(ChainError, match="cascade must stand before cfg"):
        logitkit.chain("cfg(1.5) | cascade(large='big')")
    with pytest.raises(ParameterError, match="Cascade: alpha must be"):
        Cascade(large=lambda ids: ids, alpha=torch.nan)
    other = tiny_tokenizer()._tokenizer.to_str()
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    foreign = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(other.replace('"!"', '"\\u4e00"')))
    with pytest.raises(ModelError, match=r"cascade: model 'big' must have the tokenizer .* bytes"):
        bound(chain("chow"), tokenizers={"big": foreign})
    with pytest.raises(ModelError, match="cannot be pickled"):
        pickle.dumps(bound(chain("chow")).composite)
