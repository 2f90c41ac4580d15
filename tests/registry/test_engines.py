"""Chains in the fields of other engines: round trips, defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ChainError, LogitkitError, ParameterError, UnknownNameError
from logitkit.registry import Chain
from logitkit.registry.engines import ENGINES, engine

STEPS = {
    "min_new_tokens": "min_new_tokens(4)",
    "repetition_penalty": "repetition_penalty(1.2)",
    "frequency_penalty": "frequency_penalty(0.3, window={window}, prompt={prompt})",
    "presence_penalty": "presence_penalty(0.2, window={window}, prompt={prompt})",
    "dry": "dry(multiplier=0.7, window=128)",
    "top_n_sigma": "top_n_sigma(1.5)",
    "top_k": "top_k(7)",
    "typical_p": "typical_p(0.8)",
    "top_p": "top_p(0.9)",
    "min_p": "min_p(0.1)",
    "xtc": "xtc(0.2, 0.4)",
    "temperature": "temperature(0.7)",
    "dynamic_temperature": "dynamic_temperature(0.7, 1.3, 2.0)",
    "adaptive_p": "adaptive_p(0.4)",
    "quadratic": "quadratic(0.4, 1.5)",
    "epsilon_cutoff": "epsilon_cutoff(0.0003)",
    "eta_cutoff": "eta_cutoff(0.0006)",
    "top_a": "top_a(0.3)",
    "no_repeat_ngram": "no_repeat_ngram(3)",
}


def text(name: str, step: str) -> str:
    """Return a step with the window that the penalties of an engine have."""
    windows: dict[str, dict[str, Any]] = {
        "llama.cpp": {"window": 32, "prompt": True},
        "textgen": {"window": None, "prompt": True},
    }
    return STEPS[step].format(**windows.get(name, {"window": None, "prompt": False}))


@pytest.mark.parametrize("name", ENGINES)
def test_every_step_of_an_engine_comes_back(name: str) -> None:
    """Each rule writes fields that read as the same step; the field of no other step is on."""
    for rule in engine(name).rules:
        chain = Chain(text(name, rule.step))
        assert Chain.from_engine(name, chain.to(name)).hash == chain.hash


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(ENGINES)), data=st.data())
def test_round_trips(name: str, data: st.DataObject) -> None:
    """A chain that an engine takes reads back as steps of the same effect: the same, or commuting ones in its order."""
    known = [rule.step for rule in engine(name).rules]
    steps = data.draw(st.lists(st.sampled_from(known), unique=True, max_size=5))
    try:
        chain = Chain(" | ".join(text(name, step) for step in steps))
        fields = chain.to(name)
    except LogitkitError:
        return
    back = Chain.from_engine(name, fields)
    assert {Chain([step]).hash for step in back.as_data()} == {Chain([step]).hash for step in chain.as_data()}
    commuting = engine(name).commuting
    order = [step for step, _ in back.steps]
    for later, step in enumerate(steps):
        for before in steps[:later]:
            assert order.index(before) < order.index(step) or frozenset((before, step)) in commuting
    assert back.to(name) == fields


def test_worked_examples() -> None:
    """Fields by hand."""
    assert Chain("temperature(0.8) | top_p(0.9)").to("vllm") == {
        "min_tokens": 0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "temperature": 0.8,
        "min_p": 0.0,
        "top_k": 0,
        "top_p": 0.9,
    }
    assert Chain("dynamic_temperature(0.5, 1.5)").to("llama.cpp") == {
        "samplers": ["temperature"],
        "temperature": 1.0,
        "dynatemp_range": 0.5,
        "dynatemp_exponent": 1.0,
        "mirostat": 0,
    }
    assert Chain("mirostat(tau=3.0)").to("llama.cpp")["temperature"] == 1.0
    assert Chain("epsilon_cutoff(0.0003)").to("textgen")["epsilon_cutoff"] == 3.0


def test_defaults_of_the_engines() -> None:
    """What a request that says nothing gets."""
    assert str(Chain.from_engine("llama.cpp", {})) == str(
        Chain("top_k(40) | top_p(0.95) | min_p(0.05) | temperature(0.8)")
    )
    assert all(not Chain.from_engine(name, {}).steps for name in ("vllm", "sglang", "textgen"))
    assert Chain.from_engine("llama.cpp", {"samplers": [], "prompt": "one", "n_predict": 5}) == Chain()


@pytest.mark.parametrize(
    ("name", "chain", "error"),
    [
        ("vllm", "cfg(1.5)", "every step must be one that vllm carries out, got cfg"),
        ("vllm", "top_p(0.9) | temperature(0.8)", "the order must be that of vllm"),
        ("vllm", "top_k(3, gate={'measure': 'entropy', 'above': 2.0})", "no gates"),
        ("vllm", "top_p(0.9, min_tokens_to_keep=2)", "min_tokens_to_keep must be 1 for vllm, got 2"),
        ("vllm", "frequency_penalty(0.5, window=8)", "window must be None for vllm, got 8"),
        ("sglang", "top_k(5) | top_p(0.9)", "not be both top_k and top_p"),
        ("sglang", "repetition_penalty(1.2)", "counts the prompt here"),
        ("llama.cpp", "frequency_penalty(0.5, prompt=True)", "window must be a number of tokens for llama.cpp"),
        ("llama.cpp", "dry()", "window must be a number of tokens"),
        ("llama.cpp", "top_k(3) | mirostat()", "alone or behind temperature"),
        ("llama.cpp", "xtc(seed=3)", "seed must be 0 for llama.cpp"),
        (
            "llama.cpp",
            "frequency_penalty(0.5, window=8, prompt=True) | presence_penalty(0.5, window=9, prompt=True)",
            "must agree on 'repeat_last_n'",
        ),
        ("textgen", "tail_free(0.9)", "keeps one token more"),
        ("llama.cp", "", "did you mean 'llama.cpp'"),
    ],
)
def test_refusals(name: str, chain: str, error: str) -> None:
    """One error that says what differs."""
    with pytest.raises((ChainError, ParameterError, UnknownNameError), match=error):
        Chain(chain).to(name)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("llama.cpp", {"temprature": 0.7}, "did you mean 'temperature'"),
        ("llama.cpp", {"samplers": ["top_q"]}, "no sampler of llama.cpp named 'top_q'"),
        ("llama.cpp", {"temperature": 0.0}, "set do_sample=False"),
        ("llama.cpp", {"mirostat": 1}, "mirostat must be 0 or 2"),
        ("llama.cpp", {"repeat_penalty": 1.1}, "repeat_penalty must be 1.0"),
        ("textgen", {"repetition_penalty": 1.2}, "repetition_penalty_range must be 0"),
        ("textgen", {"tfs": 0.9}, "tfs must be 1"),
        ("vllm", {"structured_outputs": {"choice": ["a"]}}, "structured_outputs must be None"),
    ],
)
def test_refused_fields(name: str, data: dict[str, Any], error: str) -> None:
    """A field without an equal step is an error, not silence."""
    with pytest.raises((ChainError, UnknownNameError), match=error):
        Chain.from_engine(name, data)
