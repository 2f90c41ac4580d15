"""Every registered search and selector keeps the laws of searches, and each law notices a search that breaks it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import logitkit
from logitkit.processors.searches import Found, Sampling, SearchRun
from logitkit.registry import Plugin, Registry, Spec
from logitkit.registry.laws.search_laws import SEARCH_LAWS, SearchSubject

NAMES = [*logitkit.names("search"), *logitkit.names("selector")]


@pytest.mark.parametrize("law", SEARCH_LAWS)
@pytest.mark.parametrize("name", NAMES)
def test_every_search_keeps_every_law(name: str, law: str) -> None:
    SEARCH_LAWS[law](SearchSubject(logitkit.describe(name)))


class Counting(Sampling):
    """A villain: the second run differs from the first, and the first prompt is written after the others."""

    seen = 0

    def search(self, run: SearchRun) -> Found:
        Counting.seen += 1
        run.seeds = run.seeds + Counting.seen
        return super().search(run)


class Mixed(Sampling):
    """A villain: the seed of a prompt depends on the number of prompts, and the rows of prompts are mixed."""

    def search(self, run: SearchRun) -> Found:
        run.seeds = run.seeds + run.prompts
        found = super().search(run)
        return dataclasses.replace(found, ids=found.ids.flip(0))


class Endless(Sampling):
    """A villain: it writes on behind the end of a row, and does not count its forwards."""

    def search(self, run: SearchRun) -> Found:
        ids = run.ids.repeat_interleave(run.wanted, dim=0)
        run.model(ids)
        ids = torch.cat([ids, ids.new_full((len(ids), run.max_new_tokens + 1), 65)], dim=1)
        return Found(ids=ids, logp=torch.zeros(len(ids)).double())


class Changing(Sampling):
    """A villain: it leaves the model in training mode, and hides the errors of its steps."""

    def search(self, run: SearchRun) -> Found:
        run.model.lm_head.train()
        return super().search(run)


VILLAINS: list[tuple[Any, list[str]]] = [
    (Counting, ["is_reproducible", "works_in_a_bare_generate"]),
    (Mixed, ["keeps_prompts_apart", "begins_with_the_prompts", "returns_the_sequences_asked_for"]),
    (Endless, ["begins_with_the_prompts", "ends_at_end_tokens", "stops_at_stop_strings", "reports_its_cost"]),
    (Changing, ["leaves_the_model_as_found"]),
]


@pytest.mark.parametrize(("villain", "law"), [(kind, law) for kind, laws in VILLAINS for law in laws])
def test_a_law_notices_a_search_that_breaks_it(villain: Any, law: str) -> None:
    target = f"{__name__}:{villain.__name__}"
    spec = Spec(name="villain", kind="search", summary="A search.", source="a test", target=target)
    registry = Registry([Plugin(name="mine", origin="mine 1.0", specs=(spec,))])
    subject = SearchSubject(spec, registry)
    subject.example = dataclasses.replace(subject.example, model=_copy(subject.model))
    with pytest.raises(AssertionError):
        SEARCH_LAWS[law](subject)


def _copy(model: Any) -> Any:
    import copy

    return copy.deepcopy(model)


def test_every_law_has_a_villain() -> None:
    assert {law for _, laws in VILLAINS for law in laws} == set(SEARCH_LAWS)


def test_the_laws_of_searches_run_by_name_and_for_a_spec() -> None:
    """``logitkit check smc`` tests the laws of searches; a villain's report names what it breaks."""
    from logitkit.registry.laws import check_processor

    report = check_processor("smc(2)", laws=["begins_with_the_prompts", "is_reproducible"])
    assert report.failures == [] and report.given == "smc(particles=2)"
    spec = Spec(name="villain", kind="search", summary="A search.", source="a test", target=f"{__name__}:Endless")
    (failure,) = check_processor(spec, laws=["begins_with_the_prompts"]).failures
    assert failure.reason == "rows have 7 new tokens, at most 6 are allowed"
