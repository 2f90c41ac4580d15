"""The cascade processor: equal to recomputation in every mode, and the large model runs only where needed."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import logitkit
from logitkit.errors import ChainError, ModelError, ParameterError
from logitkit.processors.cascade import TOKEN_RULES, Cascade, DeferralRule, TokenRule, rules
from logitkit.processors.engine import PrefixRandom
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.recompute import Recompute
from reference.speculation import cascade_by_tokens, random_distributions

INF = torch.inf
RULES = get_args(DeferralRule)
PROMPTS = ["one prompt", "a second, longer prompt", "three"]
# The most likely token of the tiny models has a probability of about 0.1; at these values some rows are deferred.
ALPHA = {"chow": 0.9, "diff": 0.03, "opt": 0.1, "token_v1": 0.02, "token_v2": 0.02, "js": 0.6, "random": 0.5}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 3},
    "several": {"do_sample": True, "num_return_sequences": 2, "top_k": 0},
}


def chain(rule: str, **parameters: Any) -> str:
    """Return the chain of one rule, with an alpha at which some rows are deferred."""
    values = {"large": "big", "rule": rule, "alpha": ALPHA.get(rule, 0.3)} | parameters
    return f"cascade({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def bound(text: str, prompts: Any = PROMPTS, **options: Any) -> Any:
    """Bind a chain to a small and a large tiny model."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, big=tiny_model(1), **options)


class Compared:
    """Compares every step of a bound cascade with the equations on prefixes that the large model reads from scratch.

    Attributes:
        worst: largest difference of a probability so far.
    """

    def __init__(self, call: Any) -> None:
        self.cascade = call.composite.parts[0][1]
        own = [call.prompts.tokens(number) for number in range(len(call.prompts))]
        self.large, self.prompts = Recompute(tiny_model(1), own, call.prompts.ids), call.prompts
        self.worst = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        got = self.cascade(input_ids, scores).log_softmax(-1).exp()
        large = self.large(input_ids).masked_fill(scores == -INF, -INF).double().log_softmax(-1)
        small = scores.double().log_softmax(-1)
        random_numbers = PrefixRandom(prompts=self.prompts)
        for row in range(len(scores)):
            q, p = small[row], large[row]
            alpha, rule = self.cascade.alpha, self.cascade.rule
            if rule == "random":
                want = q.exp() if float(random_numbers(input_ids)[row]) < alpha else p.exp()
            elif rule == "js":
                want = rules.cascade_distribution("js", q[None], p[None], alpha=alpha)[0].exp()
            else:
                small_list, large_list = q.exp().tolist(), p.exp().tolist()
                want = torch.tensor(cascade_by_tokens(rule, small_list, large_list, alpha, small_list, large_list))
            self.worst = max(self.worst, float((want - got[row].double()).abs().max()))
        return self.cascade(input_ids, scores)


CASES = [(rule, "sampling") for rule in RULES] + [("token_v3", mode) for mode in MODES if mode != "sampling"]


@pytest.mark.parametrize(("rule", "mode"), CASES)
def test_equals_recomputation_in_every_mode(rule: str, mode: str) -> None:
    """With padding, beams and samples, probabilities equal the equations on recomputed prefixes within 1e-4."""
    call = bound(chain(rule))
    compared = Compared(call)
    torch.manual_seed(0)
    tiny_model().generate(
        **call.inputs, logits_processor=[compared], **({"max_new_tokens": 6, "do_sample": False} | MODES[mode])
    )
    assert compared.worst < 1e-4
    assert 0 < call.trace.means["cascade"]["deferral"] < 1, "both models must supply tokens"


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_processor_equals_the_pure_function(rule: TokenRule, temperature: float) -> None:
    """Log-probabilities of the processor equal `rules.cascade_distribution` bit for bit."""
    scores, logits = (logp.float() for logp in random_distributions(0))
    small, large = scores.log_softmax(-1), rules.restricted_to_support(logits, scores)
    cascade = Cascade(large=lambda ids: logits, rule=rule, alpha=0.3, temperature=temperature)
    q, p = rules.tempered(small, temperature), rules.tempered(large, temperature)
    want = rules.cascade_distribution(rule, small, large, alpha=0.3, sampling_small=q, sampling_large=p)
    got, kept = cascade(torch.zeros(len(scores), 1).long(), scores), (want == small).all(-1)
    assert torch.equal(got[~kept], want[~kept])
    assert torch.equal(got[kept], scores[kept])  # rows that accept every token keep their scores


@pytest.mark.parametrize("mode", ["assistant_model", "prompt_lookup_num_tokens"])
def test_equals_plain_greedy_under_assisted_decoding(mode: str) -> None:
    """Assisted decoding rewinds and repeats prefixes; its tokens are those of plain greedy decoding."""
    assisted = {mode: tiny_model(2) if mode == "assistant_model" else 3}
    want = bound(chain("chow"), "abcabcabc").generate(max_new_tokens=12, do_sample=False)
    got = bound(chain("chow"), "abcabcabc").generate(max_new_tokens=12, do_sample=False, **assisted)
    assert torch.equal(got, want)


def variant(rule: str) -> Any:
    """Return the registered Spec with another rule in its example."""
    name = f"cascade_{rule}"
    return dataclasses.replace(
        logitkit.describe("cascade"), name=name, example=f"{name}(large='other', rule='{rule}', alpha=0.4)"
    )


@parametrize_with_laws([variant(rule) for rule in ("chow", "token_v1", "random")])
def test_other_rules_keep_the_laws(check: Callable[[], None]) -> None:
    """Rules other than that of the registered example keep every law of a processor."""
    check()


def test_worked_example() -> None:
    """By hand, q = (.6, .4), p = (.2, .8), token_v3 at .5: A = {1}, pi = (.6 x .2, .4 + .6 x .8)."""
    scores = torch.tensor([[0.6, 0.4]]).log()
    large = torch.tensor([[0.2, 0.8]]).log()
    got = Cascade(large=lambda _: large, rule="token_v3", alpha=0.5)(torch.zeros(1, 3).long(), scores)
    torch.testing.assert_close(got.exp(), torch.tensor([[0.12, 0.88]]))


def test_chow_runs_the_large_model_only_where_it_defers() -> None:
    """Under chow a step needs one large forward where a row defers, else none; the forward reads all missed tokens."""
    call = bound(chain("chow", alpha=0.9), "one prompt")
    model, reader = tiny_model(), call.composite.parts[0][1].large
    deferred: list[bool] = []

    def watch(input_ids: Tensor, scores: Tensor) -> Tensor:
        deferred.append(float(scores.softmax(-1).max()) < 0.1)
        return scores

    model.generate(**call.inputs, logits_processor=[watch, *call.processors], max_new_tokens=24, do_sample=False)
    assert 0 < sum(deferred) < 24
    assert reader.forwards == sum(deferred)
    assert reader.tokens == call.prompts.width + max(step for step, is_deferred in enumerate(deferred) if is_deferred)
    assert call.trace.means["cascade"]["large needed"] == pytest.approx(sum(deferred) / len(deferred))


def test_the_trace_reports_the_cost() -> None:
    """The trace holds deferral, acceptance, large forwards and the average number of activated parameters."""
    call = bound(chain("chow", alpha=0.0), trace=True)
    call.generate(max_new_tokens=4, do_sample=False)
    counts = [model.num_parameters() for model in (tiny_model(), tiny_model(1))]
    summary = call.trace.summary()
    means = summary["means"]["cascade"]
    assert means["activated parameters"] == sum(counts)
    assert means["deferral"] == pytest.approx(1) and summary["forwards"]["big"] == 4
    assert 0 < means["acceptance"] < 1
    assert set(call.trace.steps[0].notes) == {"resampled_mass", "acceptance"}


@pytest.mark.parametrize("rule", ["chow", "token_v2", "token_v3"])
def test_alpha_zero_is_the_large_model(rule: str) -> None:
    """At alpha 0 and temperature 0 these rules give the greedy text of the large model."""
    call = bound(chain(rule, alpha=0.0, temperature=0.0))
    got = call.generate(max_new_tokens=8, do_sample=False)
    assert torch.equal(got, tiny_model(1).generate(**call.inputs, max_new_tokens=8, do_sample=False))


def test_bad_parameters_are_refused() -> None:
    """Parameters outside their rule raise an error when the chain is read or the processor is built."""
    with pytest.raises(ParameterError, match=r"cascade: alpha must be a finite number >= 0 and <= 1, got 1\.5"):
        logitkit.chain("cascade(large='big', alpha=1.5)")
    with pytest.raises(ParameterError, match="cascade: rule must be one of 'chow'"):
        logitkit.chain("cascade(large='big', rule='chou')")
    with pytest.raises(ChainError, match="cascade must stand before cfg"):
        logitkit.chain("cfg(1.5) | cascade(large='big')")
    with pytest.raises(ParameterError, match="Cascade: alpha must be"):
        Cascade(large=lambda ids: ids, alpha=torch.nan)


def test_another_tokenizer_is_refused() -> None:
    """Binding a large model with another tokenizer raises a ModelError."""
    tokenizer = tiny_tokenizer().backend_tokenizer.to_str()
    foreign = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.replace('"!"', '"\\u4e00"')))
    with pytest.raises(ModelError, match=r"cascade: model 'big' must have the tokenizer .* bytes"):
        bound(chain("chow"), tokenizers={"big": foreign})


def test_a_bound_cascade_cannot_be_pickled() -> None:
    """Pickling a bound cascade raises a ModelError, because it holds a model."""
    with pytest.raises(ModelError, match="cannot be pickled"):
        pickle.dumps(bound(chain("chow")).composite)
