"""Drafts that other models check change the number of their forwards, and never the law of a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tests.processors.searches.tables import END, LENGTH, PROMPT, ended, every_text, four_token_model
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitkit.processors.cascade.verification import acceptance_probability, residual_distribution
from logitkit.processors.engine import Prompts, Trace
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.processor_list import ChainInGenerate
from logitkit.processors.searches import BoundSearch, Speculate, draw, uniform


class Mean(LogitsProcessor):
    """A step that names another model: the mean of both models, half and half; `large` reads whole rows."""

    def __init__(self, large: Any) -> None:
        self.large = large

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        with torch.no_grad():
            other = self.large(input_ids).logits[:, -1].softmax(-1)
        return (0.5 * scores.softmax(-1) + 0.5 * other).log()  # type: ignore[return-value]


def listed(step: LogitsProcessor, prompts: Tensor) -> LogitsProcessorList:
    """Return a chain of one step, as `generate` gets it."""
    own = Prompts(
        ids=prompts,
        mask=torch.ones_like(prompts),
        texts=("",) * len(prompts),
        messages=(None,) * len(prompts),
        adds_specials=False,
    )
    return LogitsProcessorList([ChainInGenerate(Composite([("mean", step)], prompts=own, trace=Trace()))])


def written(step: LogitsProcessor, prompts: Tensor, seeds: Sequence[int], draft_length: int, **further: Any) -> Tensor:
    """Return what the search samples behind prompts of the model of four tokens."""
    search = BoundSearch(Speculate(draft_length=draft_length, model_steps=[0]))
    search.seeds = seeds
    chosen: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": LENGTH, **further}
    return four_token_model().generate(  # type: ignore[no-any-return]
        prompts,
        attention_mask=torch.ones_like(prompts),
        custom_generate=search,
        logits_processor=listed(step, prompts),
        **chosen,
    )


def obvious(step: LogitsProcessor, prompt: Tensor, seed: int, length: int = LENGTH) -> list[int]:
    """The same, token by token, without a cache: at each place one draft, which is kept or replaced."""
    row, seeds = prompt[None], torch.tensor([seed])
    for place in range(length):
        with torch.no_grad():
            logits = four_token_model()(row).logits[:, -1]
        q, p = logits.log_softmax(-1), step(row, logits).log_softmax(-1)
        token = draw(q, uniform(seeds, 0, place))
        if float(uniform(seeds, 0, place, 1)) >= float(acceptance_probability(q, p)[0, token]):
            token = draw(residual_distribution(q, p).log(), uniform(seeds, 0, place, 2))
        row = torch.cat([row, token[:, None]], dim=1)
        if int(token) == END:
            break
    tokens: list[int] = row[0, len(prompt) :].tolist()
    return tokens


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(0, 2**30),
)
def test_tokens_are_those_of_one_draft_at_a_time(prompts: list[list[int]], count: int, length: int, seed: int) -> None:
    """Neither the number of drafts nor the other rows of the batch change a token."""
    ids, step = torch.tensor(prompts), Mean(four_token_model(1))
    seeds = [seed + 7 * number for number in range(len(ids))]
    got = written(step, ids, seeds, count, max_new_tokens=length)
    for row, prompt, own in zip(got, ids, seeds, strict=True):
        assert list(ended(row[3:].tolist())) == obvious(step, prompt, own, length)


def test_by_hand() -> None:
    """Draft a or b with 1/2 each, where p(a) = 1/4: half of the drafts a stay, the others become b.

    Of 400 texts 100 begin with a; four standard errors are 35, a false alarm 1 in 15,000.
    """

    class Table(LogitsProcessor):
        def __init__(self, p: float) -> None:
            self.p = p

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
            return torch.tensor([[self.p, 1 - self.p, 0.0, 0.0]]).log().expand_as(scores)  # type: ignore[return-value]

    ids = torch.tensor([PROMPT]).expand(400, -1)
    own = Prompts(ids=ids, mask=torch.ones_like(ids), texts=("",) * 400, messages=(None,) * 400, adds_specials=False)
    steps = [("even", Table(0.5)), ("target", Table(0.25))]
    trace = Trace()
    search = BoundSearch(Speculate(draft_length=1, model_steps=[1]), trace=trace)
    search.seeds = range(400)
    processors = LogitsProcessorList([ChainInGenerate(Composite(steps, prompts=own, trace=trace))])
    found = four_token_model().generate(
        ids, custom_generate=search, logits_processor=processors, do_sample=True, top_k=0, max_new_tokens=2
    )
    assert abs(int((found[:, 2] == 0).sum()) - 100) < 35
    assert trace.calls == trace.search.notes["rounds"]  # type: ignore[union-attr]  # drafts are no steps of the chain


@pytest.mark.parametrize("count", [1, 3])
def test_samples_have_the_law_of_the_chain(count: int) -> None:
    """Chi-squared of 3,000 texts over all texts of three tokens; a false alarm has probability 0.001."""
    step, runs = Mean(four_token_model(1)), 3000
    found = written(step, torch.tensor([PROMPT]).expand(runs, -1), range(1000, 1000 + runs), count)
    counts = dict.fromkeys(every_text(), 0)
    for row in found[:, len(PROMPT) :].tolist():
        counts[ended(row)] += 1
    expected = []
    for text in counts:
        logp = 0.0
        for place, token in enumerate(text):
            row = torch.tensor([[*PROMPT, *text[:place]]])
            with torch.no_grad():
                logits = four_token_model()(row).logits[:, -1]
            logp += float(step(row, logits).log_softmax(-1)[0, token])
        expected.append(runs * math.exp(logp))
    common = [number for number, value in enumerate(expected) if value >= 5]
    observed = [[*counts.values()][number] for number in common]
    wanted = [expected[number] for number in common]
    rest = runs - sum(observed), runs - sum(wanted)
    assert chisquare([*observed, rest[0]], [*wanted, rest[1]]).pvalue > 0.001


def test_log_probabilities_are_those_of_the_chain() -> None:
    """The sum over the tokens of a row is that of plain decoding."""
    found = []

    class Kept(BoundSearch):
        def _found(self, run: Any) -> Any:
            found.append(super()._found(run))
            return found[-1]

    for draft_length in (1, 4):
        search = Kept(Speculate(draft_length=draft_length, model_steps=[0]))
        ids = torch.tensor([PROMPT, (1, 2)])
        search.seeds = [3, 4]
        settings: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 6}
        four_token_model().generate(
            ids,
            attention_mask=torch.ones_like(ids),
            custom_generate=search,
            logits_processor=listed(Mean(four_token_model(1)), ids),
            **settings,
        )
    torch.testing.assert_close(found[0].logp, found[1].logp)
    for row, logp in zip(found[0].ids.tolist(), found[0].logp.tolist(), strict=True):
        want, text = 0.0, ended(row[2:])
        for place, token in enumerate(text):
            prefix = torch.tensor([[*row[:2], *text[:place]]])
            with torch.no_grad():
                logits = four_token_model()(prefix).logits[:, -1]
            want += float(Mean(four_token_model(1))(prefix, logits).log_softmax(-1)[0, token])  # type: ignore[arg-type]
        assert math.isclose(logp, want, abs_tol=1e-4)
