"""Infinite numbers in chains: written and read in every form, and refused where a parameter must be finite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import logitkit
from logitkit.errors import ChainError, ParameterError
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXTS = [
    "mirostat(tau=inf)",
    "mti(threshold=inf)",
    "cfg(scale=2.0, gate={'measure': 'entropy', 'above': inf})",
    "cfg(scale=2.0, gate={'measure': 'js', 'above': -inf})",
    "cfg(scale=2.0, gate={'measure': 'renyi', 'above': 0.1, 'alpha': inf})",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_form_holds_the_same_chain(text: str, tmp_path: Path) -> None:
    """Text, data, strict JSON and YAML round-trip, with one hash."""
    chain = logitkit.chain(text)
    assert str(chain) == text
    forms = [chain.as_data(), json.loads(json.dumps(chain.as_data(), allow_nan=False))]
    for ending in ("json", "yaml"):
        chain.to_file(tmp_path / f"chain.{ending}")
        forms.append(Chain.from_file(tmp_path / f"chain.{ending}").as_data())
    for form in forms:
        assert Chain(form) == chain and Chain(form).hash == chain.hash


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chain.yaml", "- {name: mirostat, params: {tau: .inf}}"),
        ("chain.yaml", "- {name: mirostat, params: {tau: inf}}"),
        ("chain.json", '[{"name": "mirostat", "params": {"tau": "inf"}}]'),
        ("chain.json", '[{"name": "mirostat", "params": {"tau": Infinity}}]'),
    ],
)
def test_the_spellings_of_files(name: str, content: str, tmp_path: Path) -> None:
    """YAML knows `.inf`; both know the text."""
    (tmp_path / name).write_text(content)
    assert str(Chain.from_file(tmp_path / name)) == "mirostat(tau=inf)"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cfg(scale=inf)", "cfg: scale must be a finite number >= 0, got inf"),
        ("cfg(scale='inf')", "cfg: scale must be a finite number >= 0, got 'inf'"),
        ("mirostat(tau=-inf)", "mirostat: tau must be a number >= 0 or inf, got -inf"),
        ("cfg(2.0, gate={'measure': 'js', 'above': 0.1, 'alpha': inf})", "gate: alpha must be a weight > 0 and < 1"),
    ],
)
def test_where_infinity_is_no_value(text: str, error: str) -> None:
    """Finite parameters, the wrong sign, and a weight."""
    with pytest.raises(ParameterError, match=error):
        logitkit.chain(text)


def test_nan_is_no_literal() -> None:
    """A chain cannot write nan, and a file that holds one is refused."""
    with pytest.raises(ChainError, match="a value must be a literal: number, inf"):
        logitkit.chain("mirostat(tau=nan)")
    with pytest.raises(ParameterError, match="mirostat: tau must be a number >= 0 or inf, got nan"):
        logitkit.chain([{"name": "mirostat", "params": {"tau": float("nan")}}])


@pytest.mark.parametrize("text", [*TEXTS[:3], "top_k(3, gate={'measure': 'max', 'above': inf})"])
def test_what_never_acts_returns_the_scores(text: str) -> None:
    """An infinite threshold or target is the identity, bit for bit, and reads no stream."""
    call = logitkit.chain(text).bind(tiny_model(), tiny_tokenizer(), ["a prompt"])
    rows = call.inputs["input_ids"]
    scores = tiny_model()(rows).logits[:, -1]
    assert torch.equal(call.composite(rows, scores), scores)
    assert not any(call.trace.forwards.values())


def test_a_gate_of_none_is_no_gate() -> None:
    """As in a file, also in text; a parameter of the processor with this name keeps its own rule."""
    assert logitkit.chain("top_k(3, gate=None)") == logitkit.chain("top_k(3)")
    assert logitkit.chain([{"name": "top_k", "params": {"top_k": 3, "gate": None}}]) == logitkit.chain("top_k(3)")
    with pytest.raises(ParameterError, match="uscd: gate must be a finite number"):
        logitkit.chain("uscd(gate=None)")
