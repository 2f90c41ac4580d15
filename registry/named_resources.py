"""Objects that a chain names, as callers pass them: in a mapping, or as arguments under any name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from logitkit.errors import ParameterError

P = ParamSpec("P")
R = TypeVar("R")


def named_objects(owner: str, parameter: str, objects: Any) -> dict[str, Any]:
    """Return a mapping of names to objects as a dictionary; None is an empty one.

    Raises:
        ParameterError: anything but a mapping.
    """
    if objects is None:
        return {}
    if not isinstance(objects, Mapping):
        way_out = f"write {parameter}={{'name': object}}"
        raise ParameterError(owner, parameter, "a mapping of names to objects", type(objects).__name__, way_out)
    return dict(objects)


def takes_resources_of_any_name(bind: Callable[P, R]) -> Callable[P, R]:
    """Let a chain name an object ``model``, ``tokenizer`` or ``prompts``, as the arguments of `Chain.bind` are named.

    An argument that is given by position and again by name is such an object; Python alone would raise a TypeError.
    """

    @functools.wraps(bind)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        own = ("model", "tokenizer", "prompts")[: len(args) - 1]
        if twice := {name: kwargs.pop(name) for name in own if name in kwargs}:
            kwargs["resources"] = {**(kwargs.get("resources") or {}), **twice}  # type: ignore[dict-item]
        return bind(*args, **kwargs)

    return bound
