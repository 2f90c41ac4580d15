"""Scored tasks in batches: the same numbers as one by one, in batches of similar length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_runs import tiny_run
from logitkit.bench.config import ChainEntry, TaskEntry
from logitkit.bench.execution import scored_batches
from logitkit.bench.execution.scored_batches import WINDOW, Subject, score_requests
from logitkit.bench.execution.unit import keys, plan, run_unit
from logitkit.bench.tasks.task import Request
from logitkit.registry import default_registry
from logitkit.registry.chain import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.examples import example_of
from logitkit.registry.scoring import score

REQUESTS = [
    Request(prompt="a prompt of text", options=(" and more text follows here", "!")),
    Request(prompt="the other prompt", options=(" short",)),
    Request(prompt="a much longer prompt of other text, a prompt as well", options=(" the end", " of it", "?")),
    Request(prompt="a prompt", options=(" x",)),
]
TEXTS = {  # parameters that name one prompt's text, in a form that holds for every prompt
    "cad": "cad(context='prompt')",
    "uscd": "uscd(lame='a lame prompt')",
}


def plain(chain: str = "") -> Subject:
    """Return the tiny model under a chain."""
    return Subject(Chain(chain), tiny_model(), tiny_tokenizer(), {}, {})


@pytest.mark.parametrize("name", default_registry().names())
def test_a_batch_has_the_numbers_of_single_requests(name: str) -> None:
    """For every registered processor: log-probabilities to the rounding of sums, and the same greedy tokens."""
    example = example_of(default_registry().describe(name))
    chain = Chain(TEXTS.get(name, example.chain))
    subject = Subject(chain, example.model, example.tokenizer, example.resources, example.tokenizers)
    together = score_requests(REQUESTS, subject, batch=3)
    for request, scored in zip(REQUESTS, together, strict=True):
        named = {"resources": subject.resources, "tokenizers": subject.tokenizers, "warn": False}
        wanted, _ = score(chain, subject.model, subject.tokenizer, request.prompt, request.options, **named)
        for option, want in zip(scored.options, wanted, strict=True):
            torch.testing.assert_close(torch.tensor(option.logp), torch.tensor(want.logp), rtol=1e-4, atol=1e-4)
            assert option.greedy == want.greedy and option.bytes == want.bytes


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.text("ab ", min_size=1, max_size=12), min_size=1, max_size=7),
    batch=st.integers(min_value=1, max_value=8),
)
def test_the_order_is_that_of_the_requests(texts: list[str], batch: int) -> None:
    """Whatever the lengths and the size of the batch."""
    requests = [Request(prompt=f"p{text}", options=(text, text + "a")) for text in texts]
    scored = score_requests(requests, plain(), batch=batch)
    assert [[option.bytes for option in each.options] for each in scored] == [[len(t), len(t) + 1] for t in texts]
    alone = [score_requests([request], plain(), batch=1)[0] for request in requests]
    got, want = ([each.options[0].total for each in side] for side in (scored, alone))
    assert got == pytest.approx(want, abs=1e-4)


def test_requests_of_similar_length_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths 9, 2, 8, 3 in batches of two: 2 with 3, and 8 with 9; one forward for each batch."""
    batches: list[list[str]] = []

    def recorded(chain: Any, model: Any, tokenizer: Any, prompts: Any, options: Any, **named: Any) -> Any:
        batches.append(list(prompts))
        return score(chain, model, tokenizer, prompts, options, **named)

    monkeypatch.setattr(scored_batches, "score", recorded)
    prompts = ["a" * length for length in (8, 1, 7, 2)]
    score_requests([Request(prompt=prompt, options=("b",)) for prompt in prompts], plain(), batch=2)
    assert batches == [["a", "aa"], ["a" * 7, "a" * 8]]


def test_a_text_that_has_ended_is_left_out() -> None:
    """The chain is called with the rows that have a token left: 2, then 1."""
    chain, model, tokenizer = Chain("cfg(1.5)"), tiny_model(), tiny_tokenizer()
    _, call = score(chain, model, tokenizer, ["a prompt", "b"], [" ab", "c"])
    assert (call.trace.calls, call.trace.rows) == (3, 4)


def test_units_of_a_scored_task_hold_a_window_of_batches(bench_place: Path) -> None:
    """One sample a unit without a batch, with the keys of before; a batch of two puts sixteen samples into a unit."""
    single = tiny_run(bench_place, tasks={"lambada": TaskEntry(task="lambada", data="words.jsonl")})
    batched = tiny_run(bench_place, tasks={"lambada": TaskEntry(task="lambada", data="words.jsonl", batch=2)})
    chains = {"plain": ChainEntry()}
    single, batched = (run.model_copy(update={"chains": chains, "resources": {}}) for run in (single, batched))
    assert [(unit.start, unit.stop) for unit in plan(single)] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert WINDOW == 8 and [(unit.start, unit.stop) for unit in plan(batched)] == [(0, 4)]
    records = [record for unit in plan(single) for record in run_unit(single, unit)]
    together = run_unit(batched, plan(batched)[0])
    assert [record["sample"] for record in together] == [record["sample"] for record in records]
    for one, other in zip(records, together, strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], abs=1e-4) and one["key"] != other["key"]
    assert len({key for run in (single, batched) for unit in plan(run) for key in keys(run, unit)}) == 8
