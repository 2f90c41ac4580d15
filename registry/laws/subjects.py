"""What the laws are run on: tiny models with exact arithmetic to compare, and processors bound to them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import LogitkitError, ParameterError, PluginError, UnknownNameError
from logitkit.params import declared
from logitkit.registry import expression
from logitkit.registry.call import bind
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.tiny_models import WIDTH, tiny_model, tiny_tokenizer
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec

TEXTS = ["a prompt of text", "the other prompt"]  # of one length, so that padding is a choice


class Subject:
    """A processor under test: how to make fresh ones, and rows to ask them about.

    Args:
        name: what it is called in reports.
        make: makes a fresh processor for prompts with so many left-padding tokens on the first.
        neutral: for each neutral parameter value, makes a processor that must change nothing.
        declared: laws it declares it cannot keep, with the reason.
        tokenizer: the tokenizer of the prompts; None: the tiny one.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Any],
        *,
        neutral: Mapping[str, Callable[[], Any]] | None = None,
        declared: Mapping[str, str] | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.name, self._make, self.neutral, self.declared = name, make, dict(neutral or {}), dict(declared or {})
        self.tokenizer = tokenizer

    def make(self, padding: int = 0) -> Any:
        """Return a fresh processor, bound to the prompts of `rows` with the same padding."""
        return self._make(padding)

    def rows(self, length: int = 12, padding: int = 0, seed: int = 0) -> Tensor:
        """Rows that continue the two prompts with ``length`` tokens, ``[2, width + length]``."""
        generator = torch.Generator().manual_seed(seed)
        inputs = prompts(padding, self.tokenizer)
        tail = torch.randint(0, 256, (2, length), generator=generator)
        return torch.cat([inputs["input_ids"], tail], dim=1)

    def scores(self, seed: int = 0, rows: int = 2) -> Tensor:
        """Logits to be processed, ``[rows, vocab]``; ids beyond the tokenizer are impossible."""
        scores = 3 * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
        scores[:, len(tiny_tokenizer()) :] = -torch.inf
        return scores


def prompts(padding: int = 0, tokenizer: Any = None) -> dict[str, Tensor]:
    """The two prompts as inputs; both grow by ``padding`` tokens on the left."""
    tokenizer = tokenizer or tiny_tokenizer()
    ids = torch.tensor(tokenizer(TEXTS)["input_ids"])
    pads = torch.full((2, padding), tokenizer.pad_token_id)
    mask = torch.cat([torch.zeros_like(pads), torch.ones_like(ids)], dim=1)
    return {"input_ids": torch.cat([pads, ids], dim=1), "attention_mask": mask}


def subject_of(thing: Spec | str | Callable[..., Any]) -> Subject:
    """Make a subject of a name, a Spec, ``module:Class``, or a class or factory.

    Args:
        thing: text may carry parameters, ``cfg(scale=2.0)`` or ``transformers:TopKLogitsWarper(top_k=5)``. A class with
            ``bind`` or with declared rules is bound as a plugin's is; anything else is called, and given
            ``model``, ``tokenizer`` and ``inputs`` (ids and mask of the prompts) where it asks for them.

    Raises:
        ParameterError: something else, or parameters missing.
    """
    if isinstance(thing, Spec):
        return _of_spec(thing, Registry([Plugin(name=thing.name, origin=thing.plugin, specs=(thing,))]))
    if isinstance(thing, str) and ":" in thing.partition("(")[0]:
        return _of_target(thing)
    if isinstance(thing, str):
        spec = default_registry().describe(thing.partition("(")[0])
        if "(" not in thing:
            return _of_spec(spec, default_registry())
        Chain(thing)  # what is wrong with it is the asker's fault, not the Spec's
        return subject_of(dataclasses.replace(spec, example=thing))
    if callable(thing):
        return _of_factory(getattr(thing, "__name__", type(thing).__name__), thing)
    raise ParameterError("check_processor", "subject", "a name, a Spec, or a factory", thing)


def _of_factory(name: str, make: Callable[..., Any], given: Mapping[str, Any] | None = None) -> Subject:
    """What a class or function makes, called with what is given and what it asks for of the laws' own world."""
    given, bare = given or {}, name.partition("(")[0]
    known = inspect.signature(make).parameters
    for key in given:
        if key not in known and not any(value.kind is value.VAR_KEYWORD for value in known.values()):
            raise UnknownNameError(f"parameter of {bare}", key, known)
    asked = [key for key, value in known.items() if _is_required(value, given)]
    for key in asked:
        if key not in ("model", "tokenizer", "inputs"):
            way_out = f"write {bare}({key}=...), or pass a factory that needs nothing else"
            raise ParameterError(f"check {bare}", key, "given", None, way_out)

    def made(padding: int) -> Any:
        world = {"model": tiny_model(), "tokenizer": tiny_tokenizer(), "inputs": prompts(padding)}
        return make(**{key: world[key] for key in asked}, **given)

    return Subject(name, made)


def _is_required(parameter: inspect.Parameter, given: Mapping[str, Any]) -> bool:
    """Say whether a parameter must still be given."""
    bare = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return bare and parameter.default is parameter.empty and parameter.name not in given


def _of_target(text: str) -> Subject:
    """The class or factory that ``module:Class`` or ``module:Class(parameter=value)`` names."""
    module, _, call = text.partition(":")
    attribute = call.partition("(")[0]
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ParameterError("check", "subject", "importable", f"{module}:{attribute}", why) from error
    if not callable(found) or (isinstance(found, type) and "__call__" not in _defined(found)):
        raise ParameterError("check", "subject", "a class of processors or a factory of one", text)
    ((_, given),) = expression.read(call, lambda name: list(inspect.signature(found).parameters))
    if not isinstance(found, type) or not (hasattr(found, "bind") or is_declared(found)):
        return _of_factory(text, found, given)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", attribute).lower()
    example = expression.write([(name, given)])
    made = subject_of(
        Spec(name=name, summary="by hand", source="by hand", target=f"{module}:{attribute}", example=example)
    )
    made.name = text
    return made


def _defined(kind: type) -> set[str]:
    """What a class and its bases define, other than object."""
    return {key for base in kind.__mro__[:-1] for key in vars(base)}


def is_declared(kind: type) -> bool:
    """Say whether a class declares rules for its parameters."""
    made: Any = kind
    try:
        return any(hasattr(annotation, "__metadata__") for annotation, _ in declared(made.__init__).values())
    except Exception:
        return False  # annotations that cannot be read declare nothing


def example_of(spec: Spec, registry: Registry) -> Chain:
    """The chain of one that a spec gives for an example.

    Raises:
        PluginError: it cannot be read, or is a chain of something else.
    """
    try:
        chain = Chain(spec.example or spec.name, registry=registry)
        ((name, _),) = chain.steps
    except (LogitkitError, ValueError) as error:
        raise PluginError(
            f"{spec.owner}: example must be a chain of it alone, got {spec.example!r}; {error}"
        ) from error
    if name != spec.name:
        raise PluginError(f"{spec.owner}: example must be a chain of it alone, got {spec.example!r}; correct the Spec")
    return chain


def _of_spec(spec: Spec, registry: Registry) -> Subject:
    """A spec's example, bound to the tiny model."""
    chain = example_of(spec, registry)
    ((_, given),) = chain.steps
    fields = {name: field.json_schema_extra for name, field in spec.model.model_fields.items()}
    neutral = {
        name: extra["neutral"] for name, extra in fields.items() if isinstance(extra, dict) and "neutral" in extra
    }
    return Subject(
        spec.name,
        lambda padding: _bound(chain, spec, padding),
        neutral={
            f"{name}={value}": functools.partial(
                _bound, Chain([{"name": spec.name, "params": {**given, name: value}}], registry=registry), spec, 0
            )
            for name, value in neutral.items()
        },
        declared=spec.laws,
        tokenizer=resources_of(spec).get("tokenizer"),
    )


def resources_of(spec: Spec, model: Any = None) -> dict[str, Any]:
    """What a spec's example is bound with: two more tiny models, and what its fixture makes of a model."""
    resources: dict[str, Any] = {"other": tiny_model(1), "third": tiny_model(2)}
    if spec.fixture:
        module, _, function = spec.fixture.partition(":")
        resources |= getattr(importlib.import_module(module), function)(model or tiny_model(), tiny_tokenizer())
    return resources


def _bound(chain: Chain, spec: Spec, padding: int) -> Any:
    """Bind a chain of one to the tiny model; the processor itself, without the composite."""
    resources = resources_of(spec)
    model, tokenizer = resources.pop("model", tiny_model()), resources.pop("tokenizer", tiny_tokenizer())
    text = str(chain)
    tokenizers = resources.pop("tokenizers", None)
    used = {name: value for name, value in resources.items() if f"'{name}'" in text}
    inputs = prompts(padding, tokenizer)
    call = bind(chain, model, tokenizer, inputs, trace=False, tokenizers=tokenizers, resources=used)
    return call.composite.parts[0][1]
