"""The reserved option ``gate``: its forms, its errors, and its laws for every processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import logitkit
from logitkit.errors import ChainError, ParameterError, UnknownNameError
from logitkit.processors.engine.gate import GateMeasure
from logitkit.registry import Chain, Spec, gate_option
from logitkit.registry.laws import check_modes, parametrize_with_laws, tiny_model, tiny_tokenizer
from logitkit.registry.laws.examples import example_of
from logitkit.registry.laws.subjects import prompts, registry_of, subject_of

ENTROPY = {"measure": "entropy", "above": 2.0}
OPEN, SHUT = {"measure": "entropy", "above": -1.0}, {"measure": "entropy", "below": -1.0}
GATED = [name for name in logitkit.names() if not logitkit.describe(name).rewrites_prompt]
TEXT = "cfg(scale=1.5, gate={'measure': 'entropy', 'above': 2.0})"


def test_text_data_and_files_hold_the_gate(tmp_path: Path) -> None:
    """All forms give one chain, with one hash that differs from the hash without a gate."""
    chain = logitkit.chain("cfg(1.5, gate={'measure': 'entropy', 'above': 2})")
    data = [{"name": "cfg", "params": {"scale": 1.5}, "gate": ENTROPY}]
    assert chain.as_data() == data and str(chain) == TEXT
    for ending in ("yaml", "json"):
        chain.to_file(tmp_path / f"chain.{ending}")
    texts = tmp_path / "text.yaml"
    texts.write_text(f'"{TEXT}"')
    files = [Chain.from_file(tmp_path / name) for name in ("chain.yaml", "chain.json", "text.yaml")]
    for same in (Chain(data), Chain(TEXT), *files):
        assert same == chain and same.hash == chain.hash
    assert chain.hash != Chain("cfg(1.5)").hash
    assert Chain([{"name": "cfg", "gate": None}]) == Chain("cfg")


def test_the_hash_holds_the_defaults_of_a_gate() -> None:
    """The default weight of js counts as given, and uscd's own gate does not count under a mapping."""
    short, full = ({"measure": "js", "above": 0.1, **more} for more in ({}, {"alpha": 0.5}))
    assert Chain([{"name": "cfg", "gate": short}]).hash == Chain([{"name": "cfg", "gate": full}]).hash
    assert Chain("uscd").hash == Chain("uscd(gate=0.894)").hash != Chain([{"name": "uscd", "gate": ENTROPY}]).hash


@pytest.mark.parametrize(
    ("gate", "error"),
    [
        (0.5, r"cfg: gate must be a mapping of measure, above or below, got 0.5; write gate=\{"),
        ({}, "cfg: gate: measure must be given"),
        ({"measure": "max"}, "cfg: gate must be a measure with exactly one of above and below"),
        ({"measure": "max", "above": 0.1, "below": 0.2}, "exactly one of above and below"),
        ({"measure": "max", "above": True}, "cfg: gate: above must be a number or inf, got True"),
        ({"measure": "Entropy", "above": 1.0}, "cfg: gate: measure must be one of .* did you mean 'entropy'"),
        ({"measure": "max", "above": 0.1, "alpha": 0.5}, "cfg: gate: alpha must be left out for measure 'max'"),
        ({"measure": "js", "above": 0.1, "alpha": 1.0}, "cfg: gate: alpha must be a weight > 0 and < 1 for js"),
        ({"measure": "renyi", "above": 0.1, "alpha": -1.0}, "cfg: gate: alpha must be an order >= 0 for renyi"),
    ],
)
def test_wrong_gates_are_refused(gate: Any, error: str) -> None:
    """Each error names the step, the rule and the value."""
    with pytest.raises(ParameterError, match=error):
        Chain([{"name": "cfg", "gate": gate}])


def test_gates_in_the_wrong_place_are_refused() -> None:
    """An unknown key, two gates, and a step that rewrites the prompt."""
    with pytest.raises(UnknownNameError, match="no parameter of cfg: gate named 'abov'; did you mean 'above'"):
        Chain([{"name": "cfg", "gate": {"measure": "max", "abov": 1.0}}])
    with pytest.raises(ChainError, match="gate of step 0 must be given once"):
        Chain([{"name": "cfg", "params": {"gate": ENTROPY}, "gate": ENTROPY}])
    with pytest.raises(ParameterError, match="byte_boundary: gate must be left out, since the processor rewrites"):
        Chain([{"name": "byte_boundary", "gate": ENTROPY}])
    with pytest.raises(ParameterError, match=r"top_k: gate: measure must be one of 'norm'.* got 'js'"):
        Chain("top_k(5, gate={'measure': 'js', 'above': 0.1})").bind(tiny_model(), tiny_tokenizer(), "a prompt")


def test_the_measures_are_those_of_the_engine() -> None:
    """The registry imports no torch, so it names the measures itself."""
    assert set(get_args(gate_option.Measure)) == set(get_args(GateMeasure))


def bound(name: str, gate: Any) -> Any:
    """Bind the example of a processor behind a gate, and return the call; the prompts are those of the laws."""
    spec = logitkit.describe(name)
    example = example_of(spec)
    ((_, parameters),) = example.chain.steps
    own = {**parameters, **(spec.ungated if gate is None else {})}
    step = {"name": name, "params": {key: value for key, value in own.items() if gate is None or key != "gate"}}
    return example.bind(prompts(0, example.tokenizer), Chain([{**step, "gate": gate}]))


@pytest.mark.parametrize("name", GATED)
def test_an_open_gate_is_no_gate_and_a_shut_one_is_no_step(name: str) -> None:
    """Always open: the ungated scores, bit for bit. Never open: the scores themselves, and no forward."""
    subject = subject_of(name)
    ids, scores = subject.rows(), subject.scores()
    plain, opened, shut = (bound(name, gate) for gate in (None, OPEN, SHUT))
    steps = [call.composite.parts[0][1] for call in (plain, opened, shut)]
    assert torch.equal(steps[1](ids, scores.clone()), steps[0](ids, scores.clone()))
    assert steps[2](ids, scores) is scores
    assert set(shut.trace.forwards.values()) <= {0} and shut.trace.fired == {name: 0.0}


def variant(name: str, gate: dict[str, Any], example: str = "") -> Spec:
    """Return a registered Spec whose example has a gate."""
    spec = logitkit.describe(name)
    text = (example or spec.example or name).partition("(")[2].rpartition(")")[0]
    return dataclasses.replace(
        spec, name=f"{name}_gated", example=f"{name}_gated({text}{', ' * bool(text)}gate={gate})"
    )


VARIANTS = [
    variant("cfg", {"measure": "entropy", "above": 4.5}),  # some rows of the tiny models, not all
    variant("dexperts", {"measure": "margin", "below": 0.05}),
    variant("top_k", {"measure": "varentropy", "below": 1.0}, "top_k(5)"),
    variant("uscd", {"measure": "norm", "below": 0.2}, "uscd(lame=['a lame prompt', 'another one'])"),
    variant("cad", {"measure": "js", "above": 0.1}),
]


@parametrize_with_laws(VARIANTS)
def test_gated_steps_keep_the_laws(check: Callable[[], None]) -> None:
    """A step behind a gate of one stream or of two keeps every law."""
    check()


SOME_MODES = ["greedy", "sampling", "beams", "left_padding", "assisted", "streaming", "bf16", "reuse"]


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.name)
def test_gated_steps_are_right_in_every_mode(spec: Spec) -> None:
    """Lazy and fused, beams and assisted decoding equal recomputation from scratch; one step is tried in all modes."""
    results = check_modes(spec, None if spec.name == "cad_gated" else SOME_MODES)
    assert not [result for result in results if not result.right and not result.refused]


def test_the_step_of_a_third_party_is_gated() -> None:
    """The registry wraps a class that knows nothing of gates; shut rows keep their scores."""
    spec = Spec(name="cool", summary="Sharpen.", source="a test", target="transformers:TemperatureLogitsWarper")
    spec = dataclasses.replace(spec, parameters=logitkit.describe("temperature").model)
    chain = Chain("cool(0.5, gate={'measure': 'max', 'below': 0.6})", registry=registry_of(spec))
    call = chain.bind(tiny_model(), tiny_tokenizer(), ["ab", "cd"])
    scores = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log().repeat_interleave(136, dim=1) - 100
    scores[1, 0] = 0.0
    got = call.composite(call.inputs["input_ids"], scores)
    assert torch.equal(got[0], scores[0] / 0.5) and torch.equal(got[1], scores[1])


def test_the_number_of_uscd_is_shorthand() -> None:
    """``uscd(gate=0.2)`` and a gate of measure norm below 0.2 generate the same, fused and lazy."""
    texts = ("uscd(gate=0.2, lame='lame')", "uscd(lame='lame', gate={'measure': 'norm', 'below': 0.2})")
    for streams in ("fused", "lazy"):
        calls = [logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), ["a prompt", "b"]) for text in texts]
        ids = [call.generate(max_new_tokens=12, do_sample=False, streams=streams) for call in calls]
        assert torch.equal(*ids) and calls[0].trace.fired == calls[1].trace.fired
        assert 0 < calls[0].trace.fired["uscd"] < 1 and calls[0].trace.forwards == calls[1].trace.forwards
