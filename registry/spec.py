"""The declaration of a processor by its plugin, as typed data. The target class is imported only when it is used."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import BaseModel

from logitkit.errors import ParameterError, PluginError, UnknownNameError
from logitkit.params import validate
from logitkit.registry import gate_option, target
from logitkit.registry.declaration_checks import (
    SEARCH_REFUSES,
    check_flags,
    check_name,
    check_texts,
    text_mapping,
    text_tuple,
)
from logitkit.registry.parameter_texts import names_in
from logitkit.registry.required_package import RequiredPackage, package_tuple

# The modes of generating that a Spec may refuse. The last two are the benchmark's: "loglikelihood" is the scoring of
# given texts, and "tokens" is a generating model over tokens, refused by methods that need a model over bytes.
REFUSABLE_MODES = ("beams", "assisted", "prompt_lookup", "static_cache", "loglikelihood", "tokens")

ExtraForwards = Literal["none", "prompt", "gated", "every_step", "every_byte", "rows"]
Kind = Literal["processor", "search", "selector"]

# The texts that the README and `logitkit show` print where a Spec gives no ``cost``.
COSTS: Mapping[ExtraForwards, str] = {
    "none": "none",
    "prompt": "the prompt once more",
    "gated": "one forward at some steps",
    "every_step": "one forward",
    "every_byte": "one short forward of each model a byte",
    "rows": "further rows of the same forwards",
}

EXAMPLE_RESOURCES = ("model", "foreign_model", "byte_model", "ngram_table")
TARGET = r"[\w.]+:\w+"
TEXTS = ("summary", "source", "target", "example", "family", "formula", "cost", "failure", "plugin")
FLAGS = (
    *("rewrites_prompt", "merged_tokens", "discards", "warper", "keeps_best", "truncates", "forbids", "last"),
    "last_under_beams",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Spec:
    """One processor by name. ``name``, ``summary``, ``source`` and ``target`` are required.

    Programs act on the typed fields. ``summary``, ``formula``, ``needs``, ``cost`` and ``failure`` are prose for
    people; no code reads them.

    Attributes:
        name: snake_case, unique among installed plugins.
        summary: what the processor does, in one sentence.
        source: where the method is from: an arXiv id, or ``transformers``.
        kind: ``processor``: a step. ``search``: a loop above the steps. ``selector``: chooses among sequences.
        target: ``module:Class`` of a LogitsProcessor, a `Search` or a `Selector`. The class may define
            ``bind(cls, binding, *, explicit parameters)`` to ask a `Binding` for readers and resources, and
            ``prepare(cls, binding, **parameters)`` to change the prompts.
        parameters: pydantic model of the parameters. None: they are read from the annotations of the target.
        revision: raised by one whenever a fix changes results. It is part of `Chain.hash`, so a benchmark never
            reuses results of an earlier revision.
        needs_models: names of the parameters whose values name models: a name passed to `Chain.bind`, a known model,
            a hub id or a folder.
        needs_tables: names of the parameters whose values name n-gram tables: a name passed to `Chain.bind` or a file.
        needs_files: names of the parameters whose values may name other objects passed to `Chain.bind`, or files,
            such as trained router heads.
        needs_packages: packages that only an extra of the distribution installs; see `RequiredPackage`.
        extra_forwards: forwards of models beyond plain decoding. ``none``: the processor works on token ids and
            scores alone, so any engine can run it. ``prompt``: over the prompt, none later. ``gated``: at steps where
            a condition holds. ``every_step``: at least one at each step. ``every_byte``: one for each byte.
            ``rows``: none, but the forwards have more rows.
        rewrites_prompt: the target has a ``prepare`` that changes the prompts.
        merged_tokens: the processor acts on tokens of several bytes alone. Its modes, and the time of its second
            streams, are measured with a tokenizer that has such tokens.
        modes: modes of generating that are refused, each with the reason; any of `REFUSABLE_MODES`.
        laws: laws that the processor cannot keep, each with the reason; see `logitkit.registry.laws`.
        discards: the processor replaces the distribution, so it must be the first of a chain.
        warper: the processor is a sampling warper: a chain with one decides the order of all warpers, so those of
            ``generate`` (its default ``top_k=50`` too) are switched off.
        keeps_best: the most probable token stays the most probable one, so greedy decoding does not change.
        truncates: the processor removes tokens by their probability, so no step that ``forbids`` may follow it.
        forbids: the processor removes tokens by a rule about the text, and the rule may leave few tokens.
        last: the processor steers by the probabilities of the chosen tokens, so no step may follow it.
        last_under_beams: its scores are not normalised and add up under beams, so no step may follow it there.
        ungated: values of parameters under which the processor's own gate is always open; they hold where a step has
            the reserved option ``gate``.
        replaces: settings of ``generate`` whose own processor this one replaces, such as ``temperature``.
        example: a chain of this processor alone, on which the laws run, such as ``contrastive(amateur='other')``.
        example_resources: objects that the example names, each with its kind. ``model``: a tiny model with the
            tokenizer of the generating model. ``foreign_model``: a tiny model with another tokenizer. ``byte_model``:
            a tiny model over bytes. ``ngram_table``: a table counted from two sentences. Any other object:
            ``module:function`` of ``(model, tokenizer)`` that returns it.
        family: heading under which the processor is listed.
        formula: what the processor does to a row of scores, in one line.
        needs: what `Chain.bind` needs beyond model, tokenizer and prompts, in words.
        cost: the extra forwards in words; left out, those of ``extra_forwards``.
        failure: when the method does harm, and what to do then.
        plugin: distribution and version that offer the processor; filled in by discovery.

    Raises:
        ParameterError, UnknownNameError: a field that breaks its rule.

    >>> spec = Spec(name="soften", summary="Flatten the distribution.", source="transformers",
    ...             target="transformers:TemperatureLogitsWarper")
    >>> spec.extra_forwards, spec.cost, spec.revision
    ('none', 'none', 1)
    """

    name: str
    summary: str
    source: str
    target: str
    kind: Kind = "processor"
    parameters: type[BaseModel] | None = None
    revision: int = 1
    needs_models: tuple[str, ...] = ()
    needs_tables: tuple[str, ...] = ()
    needs_files: tuple[str, ...] = ()
    needs_packages: tuple[RequiredPackage, ...] = ()
    extra_forwards: ExtraForwards = "none"
    rewrites_prompt: bool = False
    merged_tokens: bool = False
    modes: Mapping[str, str] = field(default_factory=dict)
    laws: Mapping[str, str] = field(default_factory=dict)
    discards: bool = False
    warper: bool = False
    keeps_best: bool = False
    truncates: bool = False
    forbids: bool = False
    last: bool = False
    last_under_beams: bool = False
    ungated: Mapping[str, float] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()
    example: str = ""
    example_resources: Mapping[str, str] = field(default_factory=dict)
    family: str = "other"
    formula: str = ""
    needs: tuple[str, ...] = ()
    cost: str = ""
    failure: str = ""
    plugin: str = ""

    def __post_init__(self) -> None:
        check_name("Spec", self.name)
        owner = f"Spec {self.name}"
        check_texts(owner, self, TEXTS)
        check_flags(owner, self, FLAGS)
        if not re.fullmatch(TARGET, self.target):
            raise ParameterError(owner, "target", "'module:Class'", self.target)
        for part in ("summary", "source"):
            if not getattr(self, part):
                raise ParameterError(owner, part, "a sentence" if part == "summary" else "given", "")
        model = self.parameters
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ParameterError(owner, "parameters", "a pydantic model class, or left out", model)
        if isinstance(self.revision, bool) or not isinstance(self.revision, int) or self.revision < 1:
            raise ParameterError(owner, "revision", "a whole number >= 1", self.revision)
        if self.kind not in get_args(Kind):
            raise ParameterError(owner, "kind", "'processor', 'search' or 'selector'", self.kind)
        self._check_facts(owner)
        object.__setattr__(self, "cost", self.cost or COSTS[self.extra_forwards])

    def _check_facts(self, owner: str) -> None:
        """Refuse values outside the vocabulary of a typed field."""
        for part in ("needs_models", "needs_tables", "needs_files", "needs", "replaces"):
            object.__setattr__(self, part, text_tuple(owner, part, getattr(self, part)))
        for part in ("modes", "laws", "example_resources"):
            object.__setattr__(self, part, text_mapping(owner, part, getattr(self, part)))
        if self.kind != "processor":
            object.__setattr__(self, "modes", {**SEARCH_REFUSES, **self.modes})
        object.__setattr__(self, "needs_packages", package_tuple(owner, self.needs_packages))
        if self.extra_forwards not in get_args(ExtraForwards):
            allowed = ", ".join(map(repr, get_args(ExtraForwards)))
            raise ParameterError(owner, "extra_forwards", f"one of {allowed}", self.extra_forwards)
        if not isinstance(self.ungated, Mapping) or any(type(v) not in (int, float) for v in self.ungated.values()):
            raise ParameterError(owner, "ungated", "a mapping of parameters to numbers", self.ungated)
        for mode in self.modes:
            if mode not in REFUSABLE_MODES:
                raise UnknownNameError(f"mode that {owner} can refuse", mode, REFUSABLE_MODES)
        for kind in self.example_resources.values():
            if kind not in EXAMPLE_RESOURCES and not re.fullmatch(TARGET, kind):
                rule = f"one of {', '.join(map(repr, EXAMPLE_RESOURCES))}, or 'module:function'"
                raise ParameterError(owner, "example_resources", rule, kind)

    def offered_by(self, plugin: str) -> Spec:
        """Return a copy that names the distribution offering it."""
        return dataclasses.replace(self, plugin=plugin)

    @property
    def owner(self) -> str:
        """The processor and its distribution, as errors name them."""
        return f"{self.name} (from {self.plugin or 'an unnamed plugin'})"

    @cached_property
    def factory(self) -> Any:
        """The target class, imported on first use.

        Raises:
            PluginError: the target cannot be imported, is no processor class, or contradicts ``rewrites_prompt``.
        """
        factory = target.load_target(self.owner, self.target)
        target.check_kind(self.owner, self.target, factory, self.kind)
        if hasattr(factory, "prepare") != self.rewrites_prompt:
            has = "a" if hasattr(factory, "prepare") else "no"
            raise PluginError(
                f"{self.owner}: rewrites_prompt must state whether {self.target} has a prepare, "
                f"got {self.rewrites_prompt} and {has} prepare; correct the Spec"
            )
        return factory

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model of the parameters; imports the target where ``parameters`` is None.

        Raises:
            PluginError: the annotations of the target cannot be read, or the Spec names a parameter that is absent.
        """
        read = self.parameters or target.read_parameters(self.owner, self.target, self.factory, self.name)
        for part in ("needs_models", "needs_tables", "needs_files"):
            for name in getattr(self, part):
                if name not in read.model_fields:
                    known = ", ".join(read.model_fields) or "none"
                    raise PluginError(f"{self.owner}: {part} must name parameters ({known}), got {name!r}")
        return read

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters and the reserved option ``gate``, validated and without defaults.

        Raises:
            ParameterError, UnknownNameError: for the first wrong parameter.
        """
        own, gate = gate_option.split(parameters)
        if own.get(gate_option.GATE, gate) is None and gate_option.GATE not in self.model.model_fields:
            own.pop(gate_option.GATE, None)  # None: no gate, as in a file
        gate_option.refuse_misplaced(self, own, gate)
        checked = validate(self.name, self.model, own)
        return checked if gate is None else {**checked, gate_option.GATE: gate_option.check(self.name, gate)}

    def filled(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters of the processor itself, with the default of each that is not given."""
        own, gate = gate_option.split(parameters)
        given = self.model.model_validate(own if gate is None else {**own, **self.ungated})
        return {key: getattr(given, key) for key in self.model.model_fields}

    def hashed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the hash of a chain covers: all parameters, and the reserved option ``gate`` if given."""
        _, gate = gate_option.split(parameters)
        return self.filled(parameters) | ({} if gate is None else {gate_option.GATE: gate_option.filled(gate)})

    def build(self, binding: Any, parameters: Mapping[str, Any]) -> Any:
        """Return the processor for one call, built from a `Binding` and checked parameters, behind its gate if any.

        Raises:
            PluginError: the target does not accept its declared parameters, raises, or returns no processor.
        """
        _, gate = gate_option.split(parameters)
        processor = target.build(self.owner, self.target, self.factory, binding, self.filled(parameters))
        return processor if gate is None else gate_option.wrapped(processor, self.name, gate, binding)

    def model_names(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return the names of models in the given parameters."""
        return names_in(parameters, self.needs_models)

    def table_names(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return the names of n-gram tables in the given parameters."""
        return names_in(parameters, self.needs_tables)

    def resource_names(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return every name in the given parameters that may stand for an object passed to `Chain.bind`."""
        return names_in(parameters, (*self.needs_models, *self.needs_tables, *self.needs_files))

    def as_data(self, *, schema: bool = True) -> dict[str, Any]:
        """Return the spec as plain data.

        Args:
            schema: include the JSON Schema of the parameters, for which the target may be imported.
        """
        data = {part.name: getattr(self, part.name) for part in dataclasses.fields(self) if part.name != "parameters"}
        data["needs_packages"] = [dataclasses.asdict(package) for package in self.needs_packages]
        data |= {key: list(value) for key, value in data.items() if isinstance(value, tuple)}
        data |= {key: dict(value) for key, value in data.items() if isinstance(value, Mapping)}
        return data | ({"parameters": self.model.model_json_schema()} if schema else {})
