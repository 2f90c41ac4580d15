"""The JSON Schema of chains agrees with what `Chain` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ChainError, LogitkitError
from logitkit.registry import Chain, default_registry
from logitkit.registry.chain_document import VERSION
from logitkit.registry.chain_schema import chain_schema

REGISTRY = default_registry()
SPECS = [REGISTRY.describe(name) for name in REGISTRY.names(kind=None)]
SCHEMA = chain_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GATE = {"measure": "entropy", "above": 2.0}
VALUES = [-1, 0, 1, 3, 0.5, 2.5, 10**9, "inf", "text", "diff", True, None, [], ["a"], [1.5], {}, {"a": 1}, [[1, 2]]]


def test_it_is_a_schema_that_json_can_hold() -> None:
    """The schema itself is valid, and has no infinite number."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_every_example_is_valid_in_every_form(name: str, tmp_path: Path) -> None:
    """As text, as data, and as the files that are written."""
    chain = logitkit.chain(REGISTRY.describe(name).example or f"{name}()")
    VALIDATOR.validate(str(chain))
    VALIDATOR.validate(chain.as_data())
    chain.to_file(tmp_path / "chain.json")
    document = json.loads((tmp_path / "chain.json").read_text())
    VALIDATOR.validate(document)
    chain.to_file(tmp_path / "chain.yaml")
    assert yaml.safe_load((tmp_path / "chain.yaml").read_text()) == document
    assert Chain(document) == chain


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (3, "$"),
        ([{"name": "cfg", "params": {"scale": -1}}], "$[0].params.scale"),
        ([{"name": "cfg", "params": {"scale": "much"}}], "$[0].params.scale"),
        ([{"name": "cfg", "params": {"size": 1}}], "$[0].params"),
        ([{"name": "top_p"}], "$[0]"),
        ([{"name": "nucleus"}], "$[0].name"),
        ([{"nam": "cfg"}], "$[0]"),
        ([{"name": "cfg", "gate": {"measure": "entropy"}}], "$[0].gate"),
        ([{"name": "cfg", "gate": {**GATE, "below": 1.0}}], "$[0].gate"),
        ([{"name": "smc", "gate": GATE}], "$[0].gate"),
        ([{"name": "smc"}, {"name": "beams"}], "$"),
        ([{"name": "best_of"}, {"name": "mbr"}], "$"),
        ({"version": "2.0", "steps": []}, "$.version"),
        ({"version": VERSION}, "$"),
        ({"version": VERSION, "steps": [], "more": 1}, "$"),
        ({"version": VERSION, "steps": [{"name": "top_k", "params": {"top_k": 0}}]}, "$.steps[0].params.top_k"),
    ],
)
def test_a_mistake_is_refused_with_its_place(data: Any, place: str) -> None:
    """By the schema and by `Chain`."""
    assert place in {error.json_path for error in VALIDATOR.iter_errors(data)}
    with pytest.raises(LogitkitError):
        logitkit.chain(data)


@given(st.data())
def test_a_value_is_valid_where_a_chain_takes_it(data: st.DataObject) -> None:
    """For any value of one parameter, the schema accepts it exactly where `Chain` does.

    Whole numbers written as 3.0 are left out: for JSON they are whole.
    """
    spec = data.draw(st.sampled_from([spec for spec in SPECS if spec.model.model_fields]))
    name = data.draw(st.sampled_from(list(spec.model.model_fields)))
    given = next(iter(logitkit.chain(spec.example).as_data()), {}).get("params", {}) if spec.example else {}
    step = {"name": spec.name, "params": {**given, name: data.draw(st.sampled_from(VALUES))}}
    empty = step == {"name": "bad_words", "params": {"bad_words_ids": []}}  # refused by code, not by a rule
    valid = VALIDATOR.is_valid([step]) and not empty
    try:
        spec.check(step["params"])
    except LogitkitError as error:
        named = f"{spec.name}: {name} must" in str(error)
        assert not (valid and named), (step, str(error))
    else:
        assert valid, step


@pytest.mark.parametrize("version", [VERSION, float(VERSION)])
def test_yaml_may_write_the_version_as_a_number(version: object) -> None:
    """`version: 1.0` is a number in YAML."""
    document: dict[str, Any] = {"version": version, "steps": [{"name": "top_p", "params": {"top_p": 0.9}}]}
    VALIDATOR.validate(document)
    assert str(Chain(document)) == "top_p(top_p=0.9)"


@pytest.mark.parametrize("document", [{"version": True, "steps": []}, {"version": "1.1", "steps": []}, {"steps": []}])
def test_other_documents_get_one_error(document: Any) -> None:
    """Another version, or none."""
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ChainError, match="version"):
        Chain(document)
