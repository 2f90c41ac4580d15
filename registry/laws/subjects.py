"""Processors under test: factories of fresh instances, and the rows and scores on which they are called."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ParameterError, UnknownNameError
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.registry import expression
from logitkit.registry.chain import Chain
from logitkit.registry.declared_parameters import declared_parameters, has_rule
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.examples import Example, example_of
from logitkit.registry.laws.tiny_models import WIDTH, tiny_model, tiny_tokenizer
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec
from logitkit.registry.target import defines_call

TEXTS = ["a prompt of text", "the other prompt"]  # of equal length, so a batch needs no padding of its own
ROW_TOKENS = 12
SHOWN = 12  # tokens of a row in reports


class Subject:
    """A processor under test.

    Args:
        name: the name in reports.
        make: returns a fresh processor, bound to the two prompts with this many padding tokens on the left.
        neutral: for each neutral parameter value, a function that returns a processor with this value.
        declared: laws that the Spec declares it cannot keep, each with the reason.
        tokenizer: tokenizer of the prompts; None: `tiny_tokenizer`.
        given: the call that makes the processor, with every parameter, for reports.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Any],
        *,
        neutral: Mapping[str, Callable[[], Any]] | None = None,
        declared: Mapping[str, str] | None = None,
        tokenizer: Any = None,
        given: str = "",
    ) -> None:
        self.name, self._make, self.neutral, self.declared = name, make, dict(neutral or {}), dict(declared or {})
        self.tokenizer, self.given = tokenizer, given

    def make(self, padding: int = 0) -> Any:
        """Return a fresh processor, bound to the prompts of `rows` with the same padding."""
        return self._make(padding)

    def rows(self, length: int = ROW_TOKENS, padding: int = 0, seed: int = 0) -> Tensor:
        """Return the two prompts, each continued by ``length`` random tokens, ``[2, width + length]``."""
        generator = torch.Generator().manual_seed(seed)
        inputs = prompts(padding, self.tokenizer)
        tail = torch.randint(0, 256, (2, length), generator=generator)
        return torch.cat([inputs["input_ids"], tail], dim=1)

    def batch(self, count: int, length: int = ROW_TOKENS) -> Tensor:
        """Return ``count`` rows, the two prompts in turn, each continued differently, ``[count, width + length]``."""
        pairs = [self.rows(length, seed=seed) for seed in range((count + 1) // 2)]
        return torch.cat(pairs)[:count]

    @property
    def end_token(self) -> int:
        """The end token of the tokenizer, or the last token where the tokenizer has none."""
        tokenizer = self.tokenizer or tiny_tokenizer()
        return int(len(tokenizer) - 1 if tokenizer.eos_token_id is None else tokenizer.eos_token_id)

    def place_of(self, prefix: Sequence[int], token: int, row: int) -> str:
        """Return a prefix and the token behind it in words: the prompt as text, then the ids of its last tokens."""
        tokenizer = self.tokenizer or tiny_tokenizer()
        place = f"row {row}, token {token}"
        if token < len(tokenizer) and (text := tokenizer.decode([token])).isprintable() and "\ufffd" not in text:
            place += f" {text!r}"
        if not prefix:
            return place
        padding = next((n for n, each in enumerate(prefix) if each != tokenizer.pad_token_id), 0)
        start = padding + prompts(0, tokenizer)["input_ids"].shape[1]
        tail = ", ".join(map(str, prefix[start:][-SHOWN:])) or "(none)"
        more = f"(the last {SHOWN} of {len(prefix) - start}) " if len(prefix) - start > SHOWN else ""
        before = f"{padding} padding tokens, " if padding else ""
        return f"{place}, after {before}{tokenizer.decode(list(prefix[padding:start]))!r} and the tokens {more}{tail}"

    def scores(self, seed: int = 0, rows: int = 2) -> Tensor:
        """Return random logits, ``[rows, vocab]``; ids that the tokenizer does not have are impossible."""
        scores = 3 * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
        scores[:, len(tiny_tokenizer()) :] = -torch.inf
        return scores


def prompts(padding: int = 0, tokenizer: Any = None) -> dict[str, Tensor]:
    """Return ids and mask of the two prompts with ``padding`` padding tokens on the left, ``[2, padding + longest]``.

    A prompt that a tokenizer writes in fewer tokens than the other has more padding.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    ids, mask = left_padded(tokenizer(TEXTS)["input_ids"], tokenizer.pad_token_id)
    pads = torch.full((2, padding), tokenizer.pad_token_id)
    return {"input_ids": torch.cat([pads, ids], dim=1), "attention_mask": torch.cat([torch.zeros_like(pads), mask], 1)}


def subject_of(thing: Spec | str | Callable[..., Any]) -> Subject:
    """Return the subject of a name, a Spec, ``module:Class``, or a class or factory.

    Args:
        thing: text may carry parameters, ``cfg(scale=2.0)`` or ``transformers:TopKLogitsWarper(top_k=5)``. A class
            with ``bind`` or with declared rules is bound like the target of a Spec. Any other callable is called;
            its required parameters may be ``model``, ``tokenizer`` and ``inputs`` (ids and mask of the prompts).

    Raises:
        ParameterError: anything else, or a required parameter that is not given.
    """
    if isinstance(thing, Spec):
        return _of_spec(thing, registry_of(thing))
    if isinstance(thing, str) and ":" in thing.partition("(")[0]:
        return _of_target(thing)
    if isinstance(thing, str):
        spec = default_registry().describe(thing.partition("(")[0])
        if "(" not in thing:
            return _of_spec(spec, default_registry())
        named = Chain(thing).resource_names  # a mistake in the text is an error of the chain, not of the Spec
        resources = {name: kind for name, kind in spec.example_resources.items() if name in named}
        return subject_of(dataclasses.replace(spec, example=thing, example_resources=resources))
    if callable(thing):
        return _of_factory(getattr(thing, "__name__", type(thing).__name__), thing)
    raise ParameterError("check_processor", "subject", "a name, a Spec, or a factory", thing)


def registry_of(spec: Spec) -> Registry:
    """Return a registry that holds one Spec alone."""
    return Registry([Plugin(name=spec.name, origin=spec.plugin, specs=(spec,))])


def _of_spec(spec: Spec, registry: Registry) -> Subject:
    """Return the subject of a Spec's example, bound to the tiny models."""
    example = example_of(spec, registry)
    ((_, parameters),) = example.chain.steps
    schemas = {name: field.json_schema_extra for name, field in spec.model.model_fields.items()}
    neutral = {
        name: extra["neutral"] for name, extra in schemas.items() if isinstance(extra, dict) and "neutral" in extra
    }

    def at(name: str, value: Any) -> Callable[[], Any]:
        chain = Chain([{"name": spec.name, "params": {**parameters, name: value}}], registry=registry)
        return lambda: _bound(example_of(spec, registry), 0, chain)

    return Subject(
        spec.name,
        lambda padding: _bound(example_of(spec, registry), padding),
        neutral={f"{name}={value}": at(name, value) for name, value in neutral.items()},
        declared=spec.laws,
        tokenizer=example.tokenizer,
        given=_given(spec, parameters),
    )


def _given(spec: Spec, parameters: Mapping[str, Any]) -> str:
    """Return the chain of a Spec's example with every parameter that has a value, and the kinds of its resources."""
    filled = {name: value for name, value in spec.filled(parameters).items() if value is not None}
    kinds = [f"{name!r} is the kind {kind}" for name, kind in spec.example_resources.items()]
    return "; ".join([expression.write([(spec.name, filled)]), *kinds])


def _bound(example: Example, padding: int, chain: Chain | None = None) -> Any:
    """Bind an example to the two prompts and return the processor itself, without the composite around it."""
    call = example.bind(prompts(padding, example.tokenizer), chain)
    return call.composite.parts[0][1]


def _of_factory(name: str, make: Callable[..., Any], parameters: Mapping[str, Any] | None = None) -> Subject:
    """Return the subject of a callable; the laws supply the objects that it requires besides these parameters."""
    parameters, bare = parameters or {}, name.partition("(")[0]
    known = inspect.signature(make).parameters
    for key in parameters:
        if key not in known and not any(value.kind is value.VAR_KEYWORD for value in known.values()):
            raise UnknownNameError(f"parameter of {bare}", key, known)
    required = [key for key, value in known.items() if _is_required(value) and key not in parameters]
    for key in required:
        if key not in ("model", "tokenizer", "inputs"):
            way_out = f"write {bare}({key}=...), or pass a factory that needs nothing else"
            raise ParameterError(f"check {bare}", key, "given", None, way_out)

    def build(padding: int) -> Any:
        offered = {"model": tiny_model(), "tokenizer": tiny_tokenizer(), "inputs": prompts(padding)}
        return make(**{key: offered[key] for key in required}, **parameters)

    defaults = {key: value.default for key, value in known.items() if value.default is not value.empty}
    shown = {**dict.fromkeys(required, "..."), **{k: repr(v) for k, v in (defaults | dict(parameters)).items()}}
    return Subject(name, build, given=f"{bare}({', '.join(f'{key}={value}' for key, value in shown.items())})")


def _is_required(parameter: inspect.Parameter) -> bool:
    """Return whether a call must give this parameter."""
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return not variadic and parameter.default is parameter.empty


def _of_target(text: str) -> Subject:
    """Return the subject of ``module:Class`` or ``module:Class(parameter=value)``, or of a factory."""
    module, _, call = text.partition(":")
    attribute = call.partition("(")[0]
    try:
        target = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ParameterError("check", "subject", "importable", f"{module}:{attribute}", why) from error
    if not callable(target) or (isinstance(target, type) and not defines_call(target)):
        raise ParameterError("check", "subject", "a class of processors or a factory of one", text)
    ((_, parameters),) = expression.read(call, lambda name: list(inspect.signature(target).parameters))
    if not isinstance(target, type) or not (hasattr(target, "bind") or has_rules(target)):
        return _of_factory(text, target, parameters)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", attribute).lower()
    spec = Spec(
        name=name,
        summary="named by its class",
        source="named by its class",
        target=f"{module}:{attribute}",
        rewrites_prompt=hasattr(target, "prepare"),
        example=expression.write([(name, parameters)]),
    )
    missing = [key for key, field in spec.model.model_fields.items() if field.is_required() and key not in parameters]
    if missing and set(parameters) <= set(spec.model.model_fields):
        bare = f"{module}:{attribute}"
        raise ParameterError(f"check {bare}", missing[0], "given", None, f"write {bare}({missing[0]}=...)")
    spec.check(parameters)  # a mistake in the text is an error of the text, not of a Spec
    subject = subject_of(spec)
    subject.name = text
    return subject


def has_rules(kind: type) -> bool:
    """Return whether the constructor of a class declares rules for its parameters."""
    try:
        return any(has_rule(annotation) for annotation, _ in declared_parameters(kind).values())
    except Exception:
        return False  # annotations that cannot be evaluated declare no rules
