"""One rule per parameter: it validates, words the error, and becomes the JSON Schema.

A constructor declares ``alpha: Annotated[float, number("floor", gt=0, le=1)]`` and is marked `checked`;
the registry reads the same annotation, so a range stands in exactly one place. No torch here.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from logitkit.errors import ParameterError, UnknownNameError

F = TypeVar("F", bound=Callable[..., Any])
# A schema is built when it is first used: listing names builds none.
STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, frozen=True, defer_build=True)


class Parameters(BaseModel):
    """Base of the parameter models that a Spec may carry: unknown names and silent coercions are refused."""

    model_config = STRICT


class Resource:
    """Marks a constructor argument that `bind` supplies (a reader, a table), not the chain's text."""


def number(help: str, *, neutral: float | None = None, **bounds: Any) -> Any:
    """Declare a finite number: ``ge``, ``gt``, ``le``, ``lt`` bound it; at ``neutral`` it changes nothing."""
    extra: Any = {} if neutral is None else {"json_schema_extra": {"neutral": neutral}}
    return Field(description=help, allow_inf_nan=False, **bounds, **extra)


def whole(help: str, *, neutral: int | None = None, **bounds: Any) -> Any:
    """Declare a whole number, bounded and neutral as in `number`."""
    extra: Any = {} if neutral is None else {"json_schema_extra": {"neutral": neutral}}
    return Field(description=help, **bounds, **extra)


def option(help: str) -> Any:
    """Declare anything else: a choice (``Literal``), text, a flag, a list."""
    return Field(description=help)


def rule_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Say the rule of an annotation in words: ``a finite number > 0 and <= 1``."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return rule_of(inner, (*metadata, *more))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(rule_of(part, metadata) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        inner = get_args(annotation)
        return f"a list, each {rule_of(inner[0])}" if inner else "a list"
    plain = {
        float: "a finite number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        type(None): "None",
    }
    words = plain.get(annotation, f"a {getattr(annotation, '__name__', str(annotation))}")
    return words + _bounds(metadata) if annotation in (float, int, str) else words


def _bounds(metadata: tuple[Any, ...]) -> str:
    """Collect ``>= 0 and <= 1`` from field declarations and annotated_types alike."""
    parts: list[Any] = []
    for item in metadata:
        parts.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [f"{sign} {getattr(p, key):g}" for p in parts for key, sign in signs.items() if hasattr(p, key)]
    lengths = [f"of length >= {p.min_length}" for p in parts if getattr(p, "min_length", None)]
    return "".join(f" {' and '.join(group)}" for group in (found, lengths) if group)


def declared(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return ``{parameter: (annotation, default)}`` of a function, without ``self``, ``cls`` and resources."""
    hints = get_type_hints(function, include_extras=True)
    found: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        skip = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in ("self", "cls")
        annotation = hints.get(name, Any)
        if skip or any(isinstance(m, Resource) for m in getattr(annotation, "__metadata__", ())):
            continue
        found[name] = (annotation, ... if parameter.default is parameter.empty else parameter.default)
    return found


def model_of(name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    """Build the strict pydantic model of declared fields."""
    return create_model(f"{name}_parameters", __config__=STRICT, **dict(fields))  # type: ignore[call-overload,no-any-return]


def validate(owner: str, model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values, checked; the first one outside its rule is a `ParameterError`.

    Defaults are not filled in: what was written is what is kept.
    """
    for name in values:
        if name not in model.model_fields:
            raise UnknownNameError(f"parameter of {owner}", name, model.model_fields)
    try:
        checked_values = model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "parameters"
        field = model.model_fields.get(name)
        if first["type"] == "missing":
            rule = rule_of(field.annotation, tuple(field.metadata)) if field else "given"
            raise ParameterError(owner, name, f"given ({rule})", None, f"write {owner}({name}=...)") from None
        rule = rule_of(field.annotation, tuple(field.metadata)) if field else str(first["msg"])
        custom = str(first["ctx"]["error"]) if first["type"] == "value_error" and "ctx" in first else ""
        raise ParameterError(owner, name, custom or rule, values.get(name)) from None
    return {name: getattr(checked_values, name) for name in values}


def checked(init: F) -> F:
    """Check the declared arguments of a keyword-only constructor before it runs."""

    @functools.cache
    def adapters() -> dict[str, tuple[TypeAdapter[Any], str]]:
        rules: dict[str, tuple[TypeAdapter[Any], str]] = {}
        for name, (annotation, _) in declared(init).items():
            if any(isinstance(m, FieldInfo) for m in getattr(annotation, "__metadata__", ())):
                rules[name] = TypeAdapter(annotation, config=ConfigDict(strict=True)), rule_of(annotation)
        return rules

    @functools.wraps(init)
    def wrapper(self: Any, **values: Any) -> None:
        for name, (adapter, rule) in adapters().items():
            if name in values:
                try:
                    adapter.validate_python(values[name])
                except ValidationError:
                    raise ParameterError(type(self).__name__, name, rule, values[name]) from None
        init(self, **values)

    return wrapper  # type: ignore[return-value]


def is_neutral(value: float, neutral: float) -> bool:
    """Say whether a strength is at its neutral value, up to the last bits of a float."""
    return math.isclose(value, neutral, rel_tol=0, abs_tol=1e-12)
