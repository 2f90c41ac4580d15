"""Rules of parameters: one annotation validates a value, words the error, and gives the JSON Schema and the help.

A constructor declares ``alpha: Annotated[float, number("plausibility", gt=0, le=1)]`` and is decorated with `checked`.
The registry reads the same annotation, so a range is written once. This module imports no torch.
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

from logitkit.errors import ParameterError, UnknownNameError, closest
from logitkit.infinite_numbers import as_text, from_text

LARGEST = 3.4e38  # scores are float32, and a larger factor would make them infinite
F = TypeVar("F", bound=Callable[..., Any])
# defer_build: a validator is built on first use, so listing names builds none.
STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, frozen=True, defer_build=True)


class Parameters(BaseModel):
    """Base class of the pydantic models for ``Spec(parameters=...)``: strict types, no unknown names.

    Needed only for targets whose constructor has no annotations, such as processors of transformers.

    >>> class Window(Parameters):
    ...     size: Annotated[int, whole("number of tokens", ge=1)] = 8
    >>> Window().size
    8
    """

    model_config = STRICT


class Resource:
    """Marks a constructor argument that ``bind`` supplies, such as a reader or a table; a chain cannot set it.

    >>> def init(self, *, table: Annotated[object, Resource()], weight: float = 1.0) -> None: ...
    >>> list(declared(init))
    ['weight']
    """


def number(help: str, *, neutral: float | None = None, infinite: bool = False, **bounds: Any) -> Any:
    """Declare a finite number, or one that may be infinite.

    Args:
        help: one line for the man page and the JSON Schema.
        neutral: the value at which the processor returns its input unchanged; a law tests this value.
        infinite: whether infinities within the bounds are allowed. A chain writes them as ``inf`` and ``-inf``, a file
            of JSON as the texts ``"inf"`` and ``"-inf"``.
        bounds: any of ``ge``, ``gt``, ``le``, ``lt``.

    Returns:
        A pydantic field for `Annotated`.

    >>> rule_of(Annotated[float, number("plausibility", gt=0, le=1)])
    'a finite number > 0 and <= 1'
    >>> rule_of(Annotated[float, number("threshold", ge=0, infinite=True)])
    'a number >= 0 or inf'
    """
    schema: dict[str, Any] = {} if neutral is None else {"neutral": as_text(neutral)}
    if infinite:
        bounds.setdefault("ge", -math.inf)  # refuses nan
        schema |= {"type": ["number", "string"], "pattern": "^-?inf$"}
    extra: Any = {"json_schema_extra": schema} if schema else {}
    return Field(description=help, allow_inf_nan=infinite, **bounds, **extra)


def whole(help: str, *, neutral: int | None = None, **bounds: Any) -> Any:
    """Declare a whole number; arguments as in `number`.

    >>> rule_of(Annotated[int, whole("tokens kept", ge=1)])
    'a whole number >= 1'
    """
    extra: Any = {} if neutral is None else {"json_schema_extra": {"neutral": neutral}}
    return Field(description=help, **bounds, **extra)


def option(help: str) -> Any:
    """Declare any other type: a choice (``Literal``), a text, a flag, a list.

    >>> rule_of(Annotated[Literal["diff", "ratio"], option("form of the contrast")])
    "one of 'diff', 'ratio'"
    """
    return Field(description=help)


def rule_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Return the rule of an annotation in words, as errors and man pages show it.

    Args:
        annotation: a type, possibly `Annotated`.
        metadata: further fields that bound it.

    >>> rule_of(float | None)
    'a finite number or None'
    """
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
    if annotation is float and _may_be_infinite(metadata):
        return f"a number{_bounds(metadata)} or inf"
    return words + _bounds(metadata) if annotation in (float, int, str) else words


def _may_be_infinite(metadata: tuple[Any, ...]) -> bool:
    """Return whether pydantic fields, or their metadata, allow infinities."""
    parts = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return any(getattr(part, "allow_inf_nan", None) for part in parts)


def _takes_infinity(field: FieldInfo) -> bool:
    """Return whether a field, or a part of its union, allows infinities."""
    parts = [part for part in get_args(field.annotation) if get_origin(part) is Annotated]
    return _may_be_infinite((field,)) or any(_may_be_infinite(get_args(part)[1:]) for part in parts)


def _bounds(metadata: tuple[Any, ...]) -> str:
    """Return bounds in words, such as ``>= 0 and <= 1``, from pydantic fields and annotated_types."""
    parts: list[Any] = []
    for item in metadata:
        parts.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    ranges = [
        f"{sign} {getattr(p, key):g}"
        for p in parts
        for key, sign in signs.items()
        if getattr(p, key, -math.inf) != -math.inf
    ]
    lengths = [f"of length >= {p.min_length}" for p in parts if getattr(p, "min_length", None)]
    return "".join(f" {' and '.join(group)}" for group in (ranges, lengths) if group)


def declared(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return ``{parameter: (annotation, default)}`` of a function, without ``self``, ``cls`` and resources.

    The default is ``...`` for a required parameter.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        skip = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in ("self", "cls")
        annotation = hints.get(name, Any)
        if skip or any(isinstance(m, Resource) for m in getattr(annotation, "__metadata__", ())):
            continue
        fields[name] = (annotation, ... if parameter.default is parameter.empty else parameter.default)
    return fields


def model_of(name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    """Return a strict pydantic model with these fields, as `declared` returns them."""
    return create_model(f"{name}_parameters", __config__=STRICT, **dict(fields))  # type: ignore[call-overload,no-any-return]


def validate(owner: str, model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, checked and without defaults.

    Args:
        owner: name that begins error messages.
        model: the rules, from `model_of`.
        values: by parameter.

    Raises:
        UnknownNameError: a name that is no parameter.
        ParameterError: for the first value that breaks its rule, and for a required parameter that is absent.

    >>> validate("cut", model_of("cut", {"share": (Annotated[float, number("share", le=1)], 0.5)}), {"share": 2.0})
    Traceback (most recent call last):
    logitkit.errors.ParameterError: cut: share must be a finite number <= 1, got 2.0
    """
    for name in values:
        if name not in model.model_fields:
            raise UnknownNameError(f"parameter of {owner}", name, model.model_fields)
    values = {
        name: from_text(value) if _takes_infinity(model.model_fields[name]) else value for name, value in values.items()
    }
    for name, value in values.items():
        if not is_valid_unicode(value):
            raise ParameterError(owner, name, "valid Unicode", value, "remove the lone surrogates")
        if isinstance(value, float) and LARGEST < abs(value) < math.inf:
            raise ParameterError(owner, name, f"a number of float32, at most {LARGEST:.1e} in size", value)
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
        value = values.get(name)
        way_out = suggestion(field.annotation, value) if field else ""
        raise ParameterError(owner, name, custom or rule, value, way_out) from None
    return {name: getattr(checked_values, name) for name in values}


def suggestion(annotation: Any, value: object) -> str:
    """Return a question with the choice of a ``Literal`` that a wrong text resembles; empty when none does.

    >>> suggestion(Literal["diff", "ratio"], "Ratio")
    "did you mean 'ratio'?"
    """
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not Literal or not isinstance(value, str):
        return ""
    close = closest(value, [choice for choice in get_args(annotation) if isinstance(choice, str)])
    return f"did you mean {close!r}?" if close else ""


def checked(init: F) -> F:
    """Decorate a keyword-only constructor so that its annotated arguments are checked before it runs.

    Raises:
        ParameterError: from the constructor, for an argument that breaks its rule.

    >>> class Cut:
    ...     @checked
    ...     def __init__(self, *, share: Annotated[float, number("share kept", gt=0, le=1)] = 0.5) -> None:
    ...         self.share = share
    >>> Cut(share=2.0)
    Traceback (most recent call last):
    logitkit.errors.ParameterError: Cut: share must be a finite number > 0 and <= 1, got 2.0
    """

    @functools.cache
    def adapters() -> dict[str, tuple[TypeAdapter[Any], str, Any]]:
        rules: dict[str, tuple[TypeAdapter[Any], str, Any]] = {}
        for name, (annotation, _) in declared(init).items():
            if any(isinstance(m, FieldInfo) for m in getattr(annotation, "__metadata__", ())):
                rules[name] = TypeAdapter(annotation, config=ConfigDict(strict=True)), rule_of(annotation), annotation
        return rules

    @functools.wraps(init)
    def wrapper(self: Any, **values: Any) -> None:
        for name, (adapter, rule, annotation) in adapters().items():
            if name in values:
                try:
                    adapter.validate_python(values[name])
                except ValidationError:
                    way_out = suggestion(annotation, values[name])
                    raise ParameterError(type(self).__name__, name, rule, values[name], way_out) from None
        init(self, **values)

    return wrapper  # type: ignore[return-value]


def is_valid_unicode(value: Any) -> bool:
    r"""Return whether no text in a value has a lone surrogate, which no tokenizer and no file in UTF-8 accepts.

    Args:
        value: a text; lists and mappings are searched, and other types have no text.

    >>> is_valid_unicode("a\U0001f600"), is_valid_unicode(["a", "\ud800"])
    (True, False)
    """
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(map(is_valid_unicode, (*value.keys(), *value.values())))
    return not isinstance(value, (list, tuple)) or all(map(is_valid_unicode, value))


def is_neutral(value: float, neutral: float) -> bool:
    """Return whether a strength equals its neutral value, up to 1e-12.

    >>> is_neutral(0.1 + 0.2 - 0.3, 0)
    True
    """
    return math.isclose(value, neutral, rel_tol=0, abs_tol=1e-12)
