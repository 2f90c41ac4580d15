"""What a plugin declares about one processor, as data. No torch until the target is used."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from logitkit.errors import LogitkitError, ParameterError, PluginError, UnknownNameError
from logitkit.params import declared, model_of, validate

# What a Spec may refuse: ways of generating; in a benchmark also to score given texts, and to generate tokens, for
# what needs a model over bytes.
MODES = ("beams", "assisted", "prompt_lookup", "static_cache", "loglikelihood", "tokens")


@dataclass(frozen=True, eq=False, kw_only=True)
class Spec:
    """One processor, by name. Only the first four fields are needed.

    Attributes:
        name: snake_case, unique among installed plugins.
        summary: one sentence.
        source: where the method is from, an arXiv id or ``transformers``.
        target: ``module:Class`` of a LogitsProcessor, imported only when used. The class may define
            ``bind(cls, binding, **parameters)`` to ask for readers, and ``prepare`` to change the prompts.
        parameters: pydantic model of the parameters; None: read off the target's signature and annotations.
        family: heading under which it is listed.
        formula: what it does to a row, in one line.
        needs: what `bind` must be given beyond model and prompts.
        cost: forwards a token beyond plain decoding, in words.
        failure: when it does harm.
        modes: ways of generating that are refused, with the reason: any of `MODES`.
        laws: laws it cannot keep, with the reason.
        discards: it replaces the distribution, so what stands before it in a chain would be lost.
        replaces: generation settings whose own warper it stands for.
        example: the call used by the laws, such as ``contrastive(amateur='other')``; they pass two tiny models
            of the same vocabulary, named ``other`` and ``third``.
        fixture: ``module:function`` of (model, tokenizer) that makes further resources for the example; what it
            gives under ``model`` and ``tokenizer`` takes the place of the two, and under ``tokenizers`` are the
            tokenizers of models among them.
        plugin: distribution and version that offered it; filled in by discovery.
    """

    name: str
    summary: str
    source: str
    target: str
    parameters: type[BaseModel] | None = None
    family: str = "other"
    formula: str = ""
    needs: tuple[str, ...] = ()
    cost: str = "none"
    failure: str = ""
    modes: Mapping[str, str] = field(default_factory=dict)
    laws: Mapping[str, str] = field(default_factory=dict)
    discards: bool = False
    replaces: tuple[str, ...] = ()
    example: str = ""
    fixture: str = ""
    plugin: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ParameterError("Spec", "name", "snake_case", self.name)
        if not re.fullmatch(r"[\w.]+:\w+", self.target):
            raise ParameterError(f"Spec {self.name}", "target", "'module:Class'", self.target)
        for part in ("summary", "source"):
            if not getattr(self, part):
                raise ParameterError(f"Spec {self.name}", part, "a sentence" if part == "summary" else "given", "")
        model = self.parameters
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ParameterError(f"Spec {self.name}", "parameters", "a pydantic model class, or left out", model)
        for mode in self.modes:
            if mode not in MODES:
                raise UnknownNameError(f"mode that Spec {self.name} can refuse", mode, MODES)

    def offered_by(self, plugin: str) -> Spec:
        """Return the same spec, marked with who offers it."""
        return dataclasses.replace(self, plugin=plugin)

    @property
    def owner(self) -> str:
        """The processor and who offers it, as errors say it."""
        return f"{self.name} (from {self.plugin or 'an unnamed plugin'})"

    @cached_property
    def factory(self) -> Any:
        """The target class.

        Raises:
            PluginError: it cannot be imported or is no processor; names the plugin and what to change.
        """
        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(
                f"{self.owner}: target {self.target!r} must be importable, "
                f"got {type(error).__name__}: {error}; correct the Spec's target"
            ) from error
        if not callable(getattr(found, "__call__", None)) or not isinstance(found, type):  # noqa: B004
            raise PluginError(
                f"{self.owner}: target {self.target!r} must be a class of "
                f"processors, got {type(found).__name__}; point it at the class"
            )
        if "__call__" not in {key for kind in found.__mro__[:-1] for key in vars(kind)}:
            raise PluginError(
                f"{self.owner}: target {self.target!r} must define "
                "__call__(input_ids, scores); subclass transformers.LogitsProcessor"
            )
        return found

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model of the parameters; without one declared, read off the target."""
        if self.parameters is not None:
            return self.parameters
        factory = self.factory
        try:
            accepted = declared(factory.__init__)
            bind = getattr(factory, "bind", None)
            asked = {key: value for key, value in declared(bind).items() if key != "binding"} if bind else {}
            return model_of(self.name, _in_order(factory, accepted, asked))
        except Exception as error:
            raise PluginError(
                f"{self.owner}: the annotations of {self.target} must say its parameters' types, "
                f"got {type(error).__name__}: {error}; import what they name, or give the Spec parameters=..."
            ) from error

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters, validated; the first wrong one is a `ParameterError` under this name."""
        return validate(self.name, self.model, parameters)

    def filled(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with every default written out."""
        return {key: getattr(self.model.model_validate(dict(parameters)), key) for key in self.model.model_fields}

    def build(self, binding: Any, parameters: Mapping[str, Any]) -> Any:
        """Build the processor of one call.

        Raises:
            PluginError: the target refuses its own declared parameters, fails, or makes no processor.
        """
        make = self.factory.bind if hasattr(self.factory, "bind") else self.factory
        arguments = (binding,) if hasattr(self.factory, "bind") else ()
        parameters = self.filled(parameters)
        try:
            inspect.signature(make).bind(*arguments, **parameters)
        except TypeError as error:
            raise PluginError(
                f"{self.owner}: {self.target} must accept its declared parameters {sorted(parameters)}, "
                f"got {type(error).__name__}: {error}; align Spec and constructor"
            ) from error
        try:
            made = make(*arguments, **parameters)
        except LogitkitError:
            raise
        except Exception as error:
            raise PluginError(
                f"{self.owner}: {self.target} must build with {dict(parameters)}, got {type(error).__name__}: {error}; "
                "correct its constructor, or the rule of the parameter"
            ) from error
        if not callable(made):
            raise PluginError(f"{self.owner}: {self.target} must make a processor, got {made!r:.80}; return it")
        return made

    def as_data(self, *, schema: bool = True) -> dict[str, Any]:
        """The spec as plain data; with ``schema`` (which may import the target) its JSON Schema too."""
        kept = ("parameters",)
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in kept}
        data |= {"needs": list(self.needs), "replaces": list(self.replaces)}
        data |= {"modes": dict(self.modes), "laws": dict(self.laws)}
        return data | ({"parameters": self.model.model_json_schema()} if schema else {})


def _in_order(factory: type, accepted: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return the declared parameters in order: ``order`` of the class, the constructor, then the rest of `bind`.

    A parameter of both takes its rule and default from the constructor, so `bind` may name it without repeating them.
    """
    names = list(getattr(factory, "order", ()))
    names += [
        name for name in inspect.signature(factory).parameters if name in {**accepted, **asked} and name not in names
    ]
    names += [name for name in asked if name not in names]
    return {name: accepted.get(name, asked.get(name)) for name in names}
