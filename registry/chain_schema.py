"""The JSON Schema of chains: what an editor or another program checks a chain's data against."""

from __future__ import annotations

from typing import Any

from logitkit.infinite_numbers import as_text
from logitkit.params import model_of
from logitkit.registry import gate_option
from logitkit.registry.chain_document import KEYS, VERSION
from logitkit.registry.discovery import default_registry
from logitkit.registry.registry import Registry
from logitkit.registry.spec import Spec

KINDS = ("search", "selector")  # of which a chain has at most one each
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DESCRIPTION = (
    "Decoding steps in order, then at most one search, then at most one selector: their text, a list, or a document "
    "with a version. A schema sees one step at a time: the order of steps, parameters that exclude each other, and "
    "names of models are checked when a chain is read and bound."
)


def chain_schema(registry: Registry | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of chains as data and as files.

    Every chain that logitkit writes is valid. A wrong name, an unknown parameter and a value that breaks its rule are
    not. The processors, and torch with them, are imported to read their parameters.

    Args:
        registry: whose processors, searches and selectors may be named; by default everything installed.

    >>> schema = chain_schema()
    >>> schema["$defs"]["cfg"]["properties"]["scale"]["minimum"]
    0
    """
    registry = registry or default_registry()
    specs = [registry.describe(name) for name in registry.names(kind=None)]
    steps = {"items": {"$ref": "#/$defs/step"}, "allOf": [_at_most_one(specs, kind) for kind in KINDS]}
    return {
        "$schema": DIALECT,
        "$id": f"urn:logitkit:chain:{VERSION}",
        "title": f"logitkit chain {VERSION}",
        "description": DESCRIPTION,
        "type": ["string", "array", "object"],
        **steps,
        "properties": {"version": {"enum": [VERSION, float(VERSION)]}, "steps": {"type": "array", **steps}},
        "required": sorted(KEYS),
        "additionalProperties": False,
        "$defs": {"step": _step(specs), "gate option": _gate()} | {spec.name: _parameters(spec) for spec in specs},
    }


def _at_most_one(specs: list[Spec], kind: str) -> dict[str, Any]:
    """Return the rule that a list has at most one step of a kind."""
    names = [spec.name for spec in specs if spec.kind == kind]
    step = {"type": "object", "properties": {"name": {"enum": names}}, "required": ["name"]}
    return {"contains": step, "minContains": 0, "maxContains": 1}


def _step(specs: list[Spec]) -> dict[str, Any]:
    """Return the schema of one step: a name, the parameters of that name, and a gate where it takes one."""
    return {
        "type": "object",
        "properties": {
            "name": {"enum": [spec.name for spec in specs]},
            "params": True,
            "gate": True,
        },
        "required": ["name"],
        "additionalProperties": False,
        "allOf": [
            {"if": {"properties": {"name": {"const": spec.name}}, "required": ["name"]}, "then": _rules(spec)}
            for spec in specs
        ],
    }


def _rules(spec: Spec) -> dict[str, Any]:
    """Return what a step of this name must fulfil."""
    gated = spec.kind == "processor" and not spec.rewrites_prompt
    gate: dict[str, Any] = {"$ref": "#/$defs/gate option"} if gated else {"type": "null"}
    required = ["params"] if any(field.is_required() for field in spec.model.model_fields.values()) else []
    return {"properties": {"params": {"$ref": f"#/$defs/{spec.name}"}, "gate": gate}, "required": required}


def _parameters(spec: Spec) -> dict[str, Any]:
    """Return the schema of the parameters of a step; without required ones, null stands for none."""
    schema = _without_titles(as_text(spec.model.model_json_schema()))
    kind = "object" if "required" in schema else ["object", "null"]
    return {**schema, "type": kind, "description": f"{spec.summary} Source: {spec.source}."}


def _gate() -> dict[str, Any]:
    """Return the schema of the reserved option ``gate``, with exactly one threshold; null stands for no gate."""
    schema = _without_titles(model_of("gate", gate_option.FIELDS).model_json_schema())
    exactly_one = [{"required": ["above"]}, {"required": ["below"]}]
    return {**schema, "type": ["object", "null"], "if": {"type": "object"}, "then": {"oneOf": exactly_one}}


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of parameters without the titles that pydantic makes of their names."""
    properties = schema.get("properties", {})
    kept = {name: {key: part for key, part in one.items() if key != "title"} for name, one in properties.items()}
    return {**{key: part for key, part in schema.items() if key != "title"}, "properties": kept}
