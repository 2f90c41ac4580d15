"""The class behind a Spec: imported on first use, its parameters read from annotations, its instances built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from logitkit.errors import LogitkitError, PluginError
from logitkit.params import model_of
from logitkit.registry.declared_parameters import declared_parameters
from logitkit.registry.foreign_code import contained, words


def load_target(owner: str, target: str) -> type[Any]:
    """Import the class that ``module:Class`` names.

    Args:
        owner: the processor and its distribution, for error messages.
        target: import path of the class.

    Raises:
        PluginError: the path cannot be imported, or does not name a class that defines ``__call__``.
    """
    module, _, attribute = target.partition(":")
    try:
        with contained():
            loaded = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginError(
            f"{owner}: target {target!r} must be importable, got {words(error)}; correct the Spec's target"
        ) from error
    if not isinstance(loaded, type):
        raise PluginError(
            f"{owner}: target {target!r} must be a class of processors, got {type(loaded).__name__}; "
            "point it at the class"
        )
    if not defines_call(loaded):
        raise PluginError(
            f"{owner}: target {target!r} must define __call__(input_ids, scores); subclass transformers.LogitsProcessor"
        )
    return loaded


def check_kind(owner: str, target: str, factory: type[Any], kind: str) -> None:
    """Check that a class is of the kind that its Spec states, by the method that only this kind has.

    Args:
        owner, target: names for error messages.
        factory: the target class.
        kind: ``processor``, ``search`` or ``selector``.

    Raises:
        PluginError: the class is of another kind.
    """
    own = "search" if hasattr(factory, "search") else "selector" if hasattr(factory, "scores") else "processor"
    if kind != "processor" and own != kind:
        base = {"search": "Search", "selector": "Selector"}[kind]
        raise PluginError(
            f"{owner}: kind must be that of {target}, got {kind!r}; subclass logitkit.processors.searches.{base}, "
            "or correct the Spec"
        )
    if kind == "processor" and own == "search" and hasattr(factory, "sequences"):
        raise PluginError(f"{owner}: kind must be 'search' for {target}, got 'processor'; correct the Spec")


def defines_call(kind: type) -> bool:
    """Return whether a class, or a base other than object, defines ``__call__``."""
    return any("__call__" in vars(base) for base in kind.__mro__[:-1])


def read_parameters(owner: str, target: str, factory: type[Any], name: str) -> type[BaseModel]:
    """Return the pydantic model of the annotated parameters of ``__init__`` and ``bind``.

    Args:
        owner, target: names for error messages.
        factory: the target class.
        name: of the processor.

    Raises:
        PluginError: an annotation cannot be evaluated or is no type that pydantic knows, or ``__init__`` and ``bind``
            contradict each other.
    """
    try:
        return model_of(name, declared_parameters(factory))
    except PluginError as error:
        raise PluginError(f"{owner}: {target}: {error}") from error
    except Exception as error:
        raise PluginError(
            f"{owner}: the annotations of {target} must state the types of its parameters, "
            f"got {words(error)}; import the names they use, or give the Spec parameters=..."
        ) from error


def build(owner: str, target: str, factory: type[Any], binding: Any, parameters: Mapping[str, Any]) -> Any:
    """Call ``bind`` of the target with all parameters, or its constructor where it has no ``bind``.

    Raises:
        PluginError: the target does not accept its declared parameters, raises, or returns no processor.
    """
    bind = getattr(factory, "bind", None)
    make, arguments = (factory, ()) if bind is None else (bind, (binding,))
    try:
        inspect.signature(make).bind(*arguments, **parameters)
    except TypeError as error:
        raise PluginError(
            f"{owner}: {target}{'' if bind is None else '.bind'} must accept its declared parameters "
            f"{sorted(parameters)}, got {words(error)}; "
            f"align {'Spec and constructor' if bind is None else 'constructor and bind'}"
        ) from error
    try:
        processor = make(*arguments, **parameters)
    except LogitkitError:
        raise
    except Exception as error:
        raise PluginError(
            f"{owner}: {target} must build with {dict(parameters)}, got {words(error)}; "
            "correct its constructor, or the rule of the parameter"
        ) from error
    if not callable(processor):
        raise PluginError(f"{owner}: {target} must return a processor, got {processor!r:.80}; return it")
    return processor
