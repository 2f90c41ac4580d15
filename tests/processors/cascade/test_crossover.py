"""Crossover: budgets by hand and as a property, decisions equal to recomputation from scratch, controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.cascade.crossover import Crossover, within
from logitkit.processors.cascade.uncertainty import uncertainty
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.prefix_random import PrefixRandom
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.recompute import Recompute

PROMPTS = ["one prompt", "a second, longer prompt", "three"]
THRESHOLD = {"js": 0.5, "entropy": 0.97, "random": 0.5}  # at which the tiny models switch now and then
BUDGETS = [None, 2, 0.3]


def chain(measure: str = "js", budget: float | None = 2, **more: Any) -> str:
    """The chain of one measure, at a threshold where it switches now and then."""
    given = {"other": "trained", "measure": measure, "threshold": THRESHOLD[measure], "budget": budget} | more
    return f"crossover({', '.join(f'{key}={value!r}' for key, value in given.items())})"


def bound(text: str, prompts: Any = PROMPTS, **more: Any) -> Any:
    """The chain between two tiny models."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, trained=tiny_model(1), **more)


class Slow:
    """The decision of every position of every row from scratch, one after the other; compares every step."""

    def __init__(self, call: Any) -> None:
        self.fast, self.prompts = call.composite.parts[0][1], call.prompts
        own = [call.prompts.tokens(n) for n in range(len(call.prompts))]
        self.base, self.trained = (Recompute(tiny_model(seed), own, call.prompts.ids) for seed in (0, 1))
        self.chance = PrefixRandom(prompts=call.prompts)
        self.switches = 0

    def decision(self, ids: Tensor, used: int, place: int) -> bool:
        """Whether one row switches."""
        base, trained = self.base(ids), self.trained(ids)
        score = {
            "js": lambda: js_bits(base, trained),
            "entropy": lambda: uncertainty(base),
            "random": lambda: self.chance(ids),
        }[self.fast.measure]()
        budget = self.fast.budget
        left = budget is None or used < (budget if isinstance(budget, int) else budget * (place + 1) - 1e-9)
        return bool(score > self.fast.threshold) and left

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        got = self.fast(input_ids, scores)
        for row in range(len(input_ids)):
            used, switch = 0, False
            for place, length in enumerate(range(self.prompts.width, input_ids.shape[1] + 1)):
                used += switch
                switch = self.decision(input_ids[row : row + 1, :length], used, place)
            want = self.trained(input_ids[row : row + 1]) if switch else scores[row : row + 1]
            torch.testing.assert_close(
                got[row : row + 1].log_softmax(-1).exp(), want.log_softmax(-1).exp(), atol=1e-4, rtol=0
            )
            self.switches += switch
        return got


@pytest.mark.parametrize("mode", [{"do_sample": True, "top_k": 0}, {"num_beams": 3}])
@pytest.mark.parametrize(("measure", "budget"), [("js", None), ("js", 2), ("js", 0.3), ("entropy", 2), ("random", 0.3)])
def test_equals_recomputation(measure: str, budget: float | None, mode: dict[str, Any]) -> None:
    """Every decision, its history included: samples and beams of padded prompts."""
    call = bound(chain(measure, budget))
    slow = Slow(call)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 6, "do_sample": False} | mode
    tiny_model().generate(**call.inputs, logits_processor=[slow], **settings)
    assert slow.switches > 0, "the test should see a switch"


@pytest.mark.parametrize("mode", ["assistant_model", "prompt_lookup_num_tokens"])
def test_equals_plain_greedy_under_assisted_decoding(mode: str) -> None:
    """Prefixes are rewound and repeated; the tokens are those of plain greedy."""
    helper = {mode: tiny_model(2) if mode == "assistant_model" else 3}
    want, got = (bound(chain(), "abcabcabc").generate(max_new_tokens=12, do_sample=False, **m) for m in ({}, helper))
    assert torch.equal(got, want)


def variant(name: str, example: str) -> Any:
    """The registered Spec with another example."""
    return dataclasses.replace(logitkit.describe("crossover"), name=name, example=f"{name}({example})")


@parametrize_with_laws(
    [
        variant("crossover_count", "other='other', threshold=0.3, budget=2"),
        variant("crossover_random", "other='other', threshold=0.5, measure='random'"),
    ]
)
def test_variants_keep_the_laws(check: Callable[[], None]) -> None:
    """Not the registered example alone."""
    check()


def test_budgets_by_hand() -> None:
    """A fraction of 1/2 allows used < (t + 1) / 2 before position t: at t = 0, then at every second position."""
    asks = torch.tensor([[True, True, False, True, True, True]])
    assert within(asks, 2).tolist() == [[True, True, False, False, False, False]]
    assert within(asks, 0.5).tolist() == [[True, False, False, True, True, False]]
    assert within(asks, 0).any() == within(asks, 0.0).any() == False  # noqa: E712
    assert torch.equal(within(asks, None), asks) and torch.equal(within(asks, 1.0), asks)


@given(
    asks=st.lists(st.booleans(), max_size=40),
    budget=st.one_of(st.integers(0, 10), st.floats(0, 1)),
)
def test_a_budget_is_never_exceeded(asks: list[bool], budget: float) -> None:
    """After n positions at most the count, or the fraction of n rounded up."""
    switched = within(torch.tensor([asks], dtype=torch.bool).reshape(1, -1), budget)[0].long().cumsum(0)
    for place, used in enumerate(switched.tolist()):
        assert used <= (budget if isinstance(budget, int) else budget * (place + 1) + 1)


def test_a_switch_is_the_other_models_law() -> None:
    """By hand: b = (.9, .1), r = (.1, .9) diverge by .53 bits; masked tokens stay masked."""
    b, r = torch.tensor([[0.9, 0.1, 0.0]]).log(), torch.tensor([[0.1, 0.9, 0.0]]).log()

    class Table:
        def __init__(self, law: Tensor) -> None:
            self.law = law

        def __call__(self, input_ids: Tensor) -> Tensor:
            return self.law

        def positions(self, input_ids: Tensor, count: int) -> Tensor:
            return self.law[:, None].expand(-1, count, -1)

    ids = torch.zeros((1, 4), dtype=torch.long)
    for threshold, budget, want in [(0.5, None, r), (0.54, None, b), (0.5, 3, r), (0.5, 2, b), (0.5, 0.7, r)]:
        made = Crossover(primary=Table(b), other=Table(r), prompt=2, threshold=threshold, budget=budget)
        # Two positions before this one asked too: a count of 2 is spent, of 3 is not.
        torch.testing.assert_close(made(ids, b).exp(), want.exp())


def test_the_log_of_every_position() -> None:
    """t, the divergence, what either model would say, and whether it switched."""
    call = bound(chain("js", 2), trace=True)
    call.generate(max_new_tokens=6, do_sample=False)
    rows = [step for step in call.trace.steps if step.row == 0]
    assert [step.position for step in rows] == list(range(6))
    assert set(rows[0].notes) == {"js", "score", "switched", "used", "own_token", "other_token"}
    assert sum(bool(step.notes["switched"]) for step in rows) <= 2
    assert call.trace.means["crossover"]["switched"] == pytest.approx(
        sum(bool(step.notes["switched"]) for step in call.trace.steps) / len(call.trace.steps)
    )


def test_the_generating_model_is_not_read_twice() -> None:
    """Its own logits are overheard."""
    call = bound(chain())
    call.generate(max_new_tokens=6, do_sample=False)
    assert call.trace.forwards == {"the generating model again": 0, "trained": 6}


@pytest.mark.parametrize("given", ["budget=-1", "budget=1.5", "budget=True", "threshold=2.0", "measure='kl'"])
def test_bad_input(given: str) -> None:
    """Ranges of the threshold and of both kinds of budget."""
    with pytest.raises(ParameterError, match=f"crossover: {given.split('=')[0]} must be"):
        logitkit.chain(f"crossover(other='x', {given})")
