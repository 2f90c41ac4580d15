"""The crossover processor: its decisions equal recomputation from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.cascade import Crossover, rules, uncertainty
from logitkit.processors.engine import PrefixRandom, js_bits
from logitkit.registry.laws import parametrize_with_laws, tiny_model, tiny_tokenizer
from reference.recompute import Recompute

PROMPTS = ["one prompt", "a second, longer prompt", "three"]
THRESHOLD = {
    "js": 0.5,
    "tv": 0.6,
    "entropy": 0.97,
    "random": 0.5,
}  # some positions of the tiny models exceed these values


def chain(measure: str = "js", budget: float | None = 2, **parameters: Any) -> str:
    """Return the chain of one measure, with a threshold that some positions exceed."""
    values = {"other": "trained", "measure": measure, "threshold": THRESHOLD[measure], "budget": budget} | parameters
    return f"crossover({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def bound(text: str, prompts: Any = PROMPTS, **options: Any) -> Any:
    """Bind a chain to two tiny models."""
    return logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), prompts, trained=tiny_model(1), **options)


class Compared:
    """Compares every step of a bound crossover with the decisions of all positions, recomputed row by row."""

    def __init__(self, call: Any) -> None:
        self.crossover, self.prompts = call.composite.parts[0][1], call.prompts
        own = [call.prompts.tokens(number) for number in range(len(call.prompts))]
        self.base, self.trained = (Recompute(tiny_model(seed), own, call.prompts.ids) for seed in (0, 1))
        self.random_numbers = PrefixRandom(prompts=call.prompts)
        self.switches = 0

    def decision(self, ids: Tensor, used: int, position: int) -> bool:
        """Return whether one row switches after these tokens."""
        base, trained = self.base(ids), self.trained(ids)
        score = {
            "js": lambda: js_bits(base, trained),
            "tv": lambda: (base.softmax(-1) - trained.softmax(-1)).abs().sum(-1) / 2,
            "entropy": lambda: uncertainty(base),
            "random": lambda: self.random_numbers(ids),
        }[self.crossover.measure]()
        budget = self.crossover.budget
        left = budget is None or used < (budget if isinstance(budget, int) else budget * (position + 1) - 1e-9)
        return bool(score > self.crossover.threshold) and left

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        got = self.crossover(input_ids, scores)
        for row in range(len(input_ids)):
            used, switch = 0, False
            for position, length in enumerate(range(self.prompts.width, input_ids.shape[1] + 1)):
                used += switch
                switch = self.decision(input_ids[row : row + 1, :length], used, position)
            want = self.trained(input_ids[row : row + 1]) if switch else scores[row : row + 1]
            torch.testing.assert_close(
                got[row : row + 1].log_softmax(-1).exp(), want.log_softmax(-1).exp(), atol=1e-4, rtol=0
            )
            self.switches += switch
        return got


@pytest.mark.parametrize("mode", [{"do_sample": True, "top_k": 0}, {"num_beams": 3}])
@pytest.mark.parametrize(
    ("measure", "budget"), [("js", None), ("js", 2), ("js", 0.3), ("tv", 2), ("entropy", 2), ("random", 0.3)]
)
def test_equals_recomputation(measure: str, budget: float | None, mode: dict[str, Any]) -> None:
    """Under sampling and beam search of padded prompts, every decision equals that of recomputed positions."""
    call = bound(chain(measure, budget))
    compared = Compared(call)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 6, "do_sample": False} | mode
    tiny_model().generate(**call.inputs, logits_processor=[compared], **settings)
    assert compared.switches > 0, "at least one position must switch"


@pytest.mark.parametrize("mode", ["assistant_model", "prompt_lookup_num_tokens"])
def test_equals_plain_greedy_under_assisted_decoding(mode: str) -> None:
    """Assisted decoding rewinds and repeats prefixes; its tokens are those of plain greedy decoding."""
    assisted = {mode: tiny_model(2) if mode == "assistant_model" else 3}
    want, got = (
        bound(chain(), "abcabcabc").generate(max_new_tokens=12, do_sample=False, **options)
        for options in ({}, assisted)
    )
    assert torch.equal(got, want)


def variant(name: str, example: str) -> Any:
    """Return the registered Spec with another example."""
    return dataclasses.replace(logitkit.describe("crossover"), name=name, example=f"{name}({example})")


@parametrize_with_laws(
    [
        variant("crossover_count", "other='other', threshold=0.3, budget=2"),
        variant("crossover_random", "other='other', threshold=0.5, measure='random'"),
    ]
)
def test_variants_keep_the_laws(check: Callable[[], None]) -> None:
    """A budget given as a count and the random measure keep every law of a processor."""
    check()


@pytest.mark.parametrize(
    ("threshold", "budget", "switches"),
    # Two positions before this one exceed the threshold too: a budget of 2 is spent, one of 3 is not.
    [(0.5, None, True), (0.54, None, False), (0.5, 3, True), (0.5, 2, False), (0.5, 0.7, True)],
)
def test_a_switched_row_is_the_other_models_distribution(
    threshold: float, budget: float | None, switches: bool
) -> None:
    """The distributions (.9, .1) and (.1, .9) diverge by .53 bits; impossible tokens stay impossible."""
    b, r = torch.tensor([[0.9, 0.1, 0.0]]).log(), torch.tensor([[0.1, 0.9, 0.0]]).log()
    streams = {"primary": lambda rows: b, "other": lambda rows: r}
    crossover = Crossover(**streams, prompt_width=2, threshold=threshold, budget=budget)
    got = crossover(torch.zeros((1, 4), dtype=torch.long), b)
    torch.testing.assert_close(got.exp(), (r if switches else b).exp())
    assert torch.equal(got, rules.replaced_rows(b, r, torch.tensor([switches])))


def test_the_trace_records_every_position() -> None:
    """The trace holds position, divergence, both models' tokens and the decision of every step."""
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
    """The generating model's logits are captured from its own forward; only the other model needs forwards."""
    call = bound(chain())
    call.generate(max_new_tokens=6, do_sample=False)
    assert call.trace.forwards == {"generating model": 0, "trained": 6}


@pytest.mark.parametrize("parameter", ["budget=-1", "budget=1.5", "budget=True", "threshold=2.0", "measure='kl'"])
def test_parameters_outside_their_range_are_refused(parameter: str) -> None:
    """A chain with a budget, threshold or measure outside its rule raises a ParameterError."""
    with pytest.raises(ParameterError, match=f"crossover: {parameter.split('=')[0]} must be"):
        logitkit.chain(f"crossover(other='x', {parameter})")
