"""Chains are read, written, checked, ordered and hashed."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ChainError, FileFormatError, ParameterError, UnknownNameError
from logitkit.registry import Chain, Plugin, Registry, Spec
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXT = "temperature(0.8) | uscd(rho=0.7, form='ratio') | top_p(0.9)"


def test_positions_and_names_mean_the_same() -> None:
    """Arguments without a name are assigned in the order of the plugin's parameters."""
    assert logitkit.chain("cfg(1.5, 'bad')") == logitkit.chain("cfg(negative='bad', scale=1.5)")
    assert logitkit.chain("uscd") == logitkit.chain("uscd()")


def test_text_data_and_files_round_trip(tmp_path: Path) -> None:
    """Text, list, YAML, JSON and pickle give back the same chain."""
    chain = logitkit.chain(TEXT)
    assert logitkit.chain(str(chain)) == chain
    assert logitkit.chain(chain.as_data()) == chain
    assert pickle.loads(pickle.dumps(chain)) == copy.deepcopy(chain) == chain
    assert {chain, logitkit.chain(chain.as_data())} == {chain}
    for name in ("chain.yaml", "chain.json"):
        chain.to_file(tmp_path / name)
        assert Chain.from_file(tmp_path / name) == chain


def test_a_file_may_hold_the_text_form(tmp_path: Path) -> None:
    """A YAML file may hold the text form of a chain."""
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TEXT))
    assert Chain.from_file(tmp_path / "c.yaml") == logitkit.chain(TEXT)


def test_the_hash_is_stable_and_knows_defaults() -> None:
    """The hash does not depend on written defaults or on the form; it depends on every value."""
    assert logitkit.chain("cfg()").hash == logitkit.chain([{"name": "cfg", "params": {"scale": 1.5}}]).hash
    assert logitkit.chain("top_k(4) | top_p(0.9)").hash == "b0dc50a5fdba2bc4"
    different = {logitkit.chain(text).hash for text in ("cfg(1.5)", "cfg(1.6)", "cad(context='a')", "", TEXT)}
    assert len(different) == 5


@given(st.dictionaries(st.sampled_from(["scale", "negative"]), st.nothing()))
def test_empty_parameters_are_no_parameters(params: dict[str, object]) -> None:
    """An empty mapping of parameters equals a name alone."""
    assert Chain([{"name": "cfg", "params": params}]) == Chain("cfg")


@given(scale=st.floats(0, 100), negative=st.text(min_size=1))
def test_any_value_survives_the_text_form(scale: float, negative: str) -> None:
    """Any text and number survives the text form, quotes and newlines included."""
    chain = Chain([{"name": "cfg", "params": {"scale": scale, "negative": negative}}])
    assert Chain(str(chain)) == chain


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uscd(rho=", "never closed"),
        ("uscd(rho=1) || cfg()", "invalid syntax"),
        ("uscd(rho=x)", "must be a literal"),
        ("uscd(rho=__import__('os').getpid())", "must be a literal"),
        ("a.b()", r"written name\(parameter=value\)"),
        ("1 | 2", r"written name\(parameter=value\)"),
        ("cfg(1.5, None, None, 'js', 3)", r"takes 4 parameter"),
        ("cfg(1.5, scale=2.0)", "given twice"),
        ("cfg(**{})", "must be named"),
    ],
)
def test_malformed_text_shows_the_place(text: str, says: str) -> None:
    """A mistake in the text is reported with a caret under its place."""
    with pytest.raises(ChainError, match=says) as raised:
        logitkit.chain(text)
    assert str(raised.value).split("\n")[-1].strip() == "^"


def test_the_caret_stands_under_the_fault() -> None:
    """For uscd(rho=x) the caret is in column 9."""
    with pytest.raises(ChainError) as raised:
        logitkit.chain("uscd(rho=x)")
    assert str(raised.value).split("\n")[-1] == "  " + " " * 9 + "^"


@pytest.mark.parametrize(
    ("chain", "error", "says"),
    [
        ("usdc()", UnknownNameError, "did you mean 'uscd'"),
        ("uscd(roh=1)", UnknownNameError, "did you mean 'rho'"),
        ("uscd(rho=-1)", ParameterError, "uscd: rho must be a finite number >= 0, got -1"),
        ("uscd(form='sum')", ParameterError, "form must be one of 'diff', 'ratio', got 'sum'"),
        ("top_k(0)", ParameterError, "top_k must be a whole number >= 1, got 0"),
        ("top_k(2.5)", ParameterError, "a whole number"),
        ("temperature('hot')", ParameterError, "a finite number > 0, got 'hot'"),
        ("temperature()", ParameterError, r"must be given .* write temperature\(temperature=...\)"),
        ([{"nam": "uscd"}], ChainError, "step 0 must be"),
        ([{"name": "uscd", "params": 3}], ChainError, "params of step 0"),
        ({"name": "uscd"}, ChainError, "must be text, a list of"),
    ],
)
def test_bad_chains_get_one_clear_error(chain: object, error: type[Exception], says: str) -> None:
    """A wrong chain raises one named error when it is read."""
    with pytest.raises(error, match=says):
        logitkit.chain(chain)  # type: ignore[arg-type]


def test_files_that_are_no_chains(tmp_path: Path) -> None:
    """Broken JSON and an unknown ending raise named errors."""
    (tmp_path / "c.json").write_text("[{")
    with pytest.raises(FileFormatError, match="must be json"):
        Chain.from_file(tmp_path / "c.json")
    with pytest.raises(FileFormatError, match="must end in"):
        Chain.from_file(tmp_path / "c.toml")


def test_yaml_never_builds_objects(tmp_path: Path) -> None:
    """A YAML tag that would call Python is refused."""
    (tmp_path / "c.yaml").write_text("- !!python/object/apply:os.getpid []")
    with pytest.raises(FileFormatError):
        Chain.from_file(tmp_path / "c.yaml")


def test_an_order_that_would_discard_an_effect_is_refused() -> None:
    """A processor that replaces the distribution must come first; the error shows the right order."""
    where = "transformers:TemperatureLogitsWarper"
    specs = (
        Spec(name="warm", summary="s", source="s", target=where),
        Spec(name="swap", summary="s", source="s", target=where, discards=True),
    )
    registry = Registry([Plugin(name="p", origin="here", specs=specs)])
    Chain("swap(1.0) | warm(1.0)", registry=registry)
    with pytest.raises(ChainError, match=r"swap must stand before warm.*swap\(...\) \| warm\(...\)"):
        Chain("warm(1.0) | swap(1.0)", registry=registry)


@pytest.mark.parametrize("name", logitkit.names())
def test_every_plugin_exports_its_schema(name: str) -> None:
    """Each Spec gives a JSON Schema with a description of every parameter."""
    data = json.loads(json.dumps(logitkit.describe(name).as_data()))
    assert data["parameters"]["additionalProperties"] is False
    assert all(p.get("description") for p in data["parameters"].get("properties", {}).values())


def test_a_file_is_read_with_its_registry_and_keeps_the_order(tmp_path: Path) -> None:
    """Names come from the given registry; parameters stay in the order in which they were written."""
    chain = logitkit.chain("uscd(rho=0.5, gate=0.25)")
    chain.to_file(tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    assert text.index("name: uscd") < text.index("rho: 0.5") < text.index("gate: 0.25")
    assert Chain.from_file(tmp_path / "c.yaml", registry=chain.registry).registry is chain.registry
    with pytest.raises(UnknownNameError):
        Chain.from_file(tmp_path / "c.yaml", registry=Registry([]))


def test_a_chain_of_a_chain_keeps_its_registry() -> None:
    """Also in the functions that accept any chain; another registry can be given."""
    spec = Spec(name="warm", summary="s", source="s", target="transformers:TemperatureLogitsWarper")
    chain = Chain("warm(0.5)", registry=Registry([Plugin(name="p", origin="here", specs=(spec,))]))
    assert Chain(chain) == logitkit.chain(chain) == chain and Chain(chain).registry is chain.registry
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert logitkit.generate(model, tokenizer, "a", chain=chain, max_new_tokens=2).trace.calls == 2
    assert len(logitkit.score(model, tokenizer, "a", [" b"], chain=chain)) == 1
    with logitkit.attach(model, tokenizer, chain):
        model.generate(**tokenizer("a", return_tensors="pt"), max_new_tokens=2)
    with pytest.raises(UnknownNameError):
        Chain(chain, registry=Registry([]))


def test_the_longest_text() -> None:
    """A text may have 20,000 characters and no more."""
    longest = f"top_k(5{' ' * 19_992})"
    assert len(longest) == 20_000 and logitkit.chain(longest) == logitkit.chain("top_k(5)")
    with pytest.raises(ChainError, match="at most 20000 characters, got 20001"):
        logitkit.chain(longest[:-1] + " )")
