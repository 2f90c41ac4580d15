"""Orders of steps that cannot mean what they say are refused, with the order to write."""

from __future__ import annotations

import pytest

import logitkit
from logitkit.errors import ChainError
from logitkit.registry import Plugin, Registry, Spec

CONSTRAINTS = {
    "ban_phrases": "ban_phrases(['a'])",
    "canonical": "canonical()",
    "choices": "choices(['a'])",
    "grammar": "grammar(regex='a')",
    "thinking_budget": "thinking_budget('a', 'b', 3)",
}


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("truncation", ["top_k(3)", "min_p(0.1)", "xtc()", "top_a()"])
def test_constraints_stand_before_truncations(name: str, truncation: str) -> None:
    """A truncation may remove every token that a constraint behind it allows."""
    step, other = CONSTRAINTS[name], truncation.partition("(")[0]
    assert len(logitkit.chain(f"{step} | temperature(0.7) | {truncation}")) == 3
    with pytest.raises(ChainError, match=rf"{name} must stand before {other}, .*write {name}\(\.\.\.\) \| {other}\("):
        logitkit.chain(f"{truncation} | temperature(0.7) | {step}")


@pytest.mark.parametrize("controller", ["mirostat()", "adaptive_p()"])
def test_controllers_stand_last(controller: str) -> None:
    """A later step would change the probabilities that the controller steers by."""
    name = controller.partition("(")[0]
    assert len(logitkit.chain(f"grammar(regex='a') | temperature(0.7) | {controller}")) == 3
    with pytest.raises(ChainError, match=rf"{name} must be the last step, .* write temperature\(...\) \| {name}\("):
        logitkit.chain(f"{controller} | temperature(0.7)")
    with pytest.raises(ChainError, match=r"must be the last step|must stand before"):
        logitkit.chain(f"{controller} | grammar(regex='a')")


def test_third_parties_declare_the_same() -> None:
    """The flags of a Spec decide, not its name; each is a bool."""
    where = "transformers:TemperatureLogitsWarper"
    specs = (
        Spec(name="cut", summary="s", source="s", target=where, truncates=True),
        Spec(name="rule", summary="s", source="s", target=where, forbids=True),
        Spec(name="steer", summary="s", source="s", target=where, last=True),
    )
    registry = Registry([Plugin(name="p", origin="here", specs=specs)])
    logitkit.Chain("rule(1.0) | rule(1.0) | cut(1.0) | cut(1.0) | steer(1.0)", registry=registry)
    for order in ("cut(1.0) | rule(1.0)", "steer(1.0) | cut(1.0)", "steer(1.0) | steer(1.0)"):
        with pytest.raises(ChainError, match="write"):
            logitkit.Chain(order, registry=registry)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("smc(2) | top_p(0.9)", r"smc must stand behind top_p.*write top_p\(...\) \| smc\(...\)"),
        ("best_of(2) | smc(2)", r"best_of must stand behind smc.*write smc\(...\) \| best_of\(...\)"),
        ("smc(2) | smc(3)", "at most one search, got smc and smc"),
        ("best_of(2) | best_of(3)", "at most one selector, got best_of and best_of"),
    ],
)
def test_a_chain_is_steps_then_a_search_then_a_selector(chain: str, words: str) -> None:
    with pytest.raises(ChainError, match=words):
        logitkit.chain(chain)


def test_a_search_may_follow_a_step_that_must_be_last() -> None:
    assert logitkit.chain("mirostat() | smc(2) | best_of()").searches
