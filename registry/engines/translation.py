"""Chains as the sampling fields of another engine, and back: what a step is called there, and when it is the same.

An engine is data: a rule for each step that it can carry out, in the order in which it does. A step without a rule, a
parameter without a field and an order that the engine cannot follow are refused, since the request would sample from
another distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logitkit.errors import ChainError, ParameterError, UnknownNameError

Step = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a step is written in the fields of an engine.

    Attributes:
        step: name of the processor.
        fields: the engine's field of each parameter; the first one turns the step on.
        neutral: value of the first field with which the engine leaves the step out.
        is_off: whether the engine leaves the step out at a value of the first field.
        fixed: parameters without a field, which must have this value, as the engine has it.
        constants: further fields, which must have this value when the step is on.
        sampler: its name in the engine's list of samplers.
        to_field, from_field: convert a value of the first field.
    """

    step: str
    fields: Mapping[str, str]
    neutral: Any
    is_off: Callable[[Any], bool]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = ""
    to_field: Callable[[Any], Any] = lambda value: value
    from_field: Callable[[Any], Any] = lambda value: value

    @property
    def switch(self) -> str:
        """The field that turns the step on."""
        return next(iter(self.fields.values()))

    def write(self, engine: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a step with all of its parameters."""
        for name, wanted in self.fixed.items():
            if parameters[name] != wanted:
                raise ParameterError(self.step, name, f"{wanted!r} for {engine}", parameters[name])
        written = {key: parameters[name] for name, key in self.fields.items()}
        return {**written, self.switch: self.to_field(written[self.switch]), **self.constants}

    def read(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the parameters of the step in fields with all defaults; None: the engine leaves the step out."""
        if self.is_off(data[self.switch]):
            return None
        for key, value in self.constants.items():
            if data[key] != value:
                raise ChainError(f"chain: {key} must be {value!r} for {self.step}, got {data[key]!r}")
        read = {name: data[key] for name, key in self.fields.items()}
        return read | {next(iter(self.fields)): self.from_field(data[self.switch])} | dict(self.fixed)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The samplers of an engine.

    Attributes:
        name: as in `Chain.to`.
        rules: in the order in which the engine applies them by default.
        defaults: value of each field that a request leaves out.
        order: field with the names of the samplers in their order; empty: the order is fixed.
        other_samplers: names in that list without a step, which are off unless a field of ``without`` says otherwise.
        lists_all: whether samplers that are not in the list of the order are left out.
        commuting: pairs of steps whose order does not matter.
        differing: steps that the engine has under a field, but computes in another way, with the difference.
        without: fields of which logitkit has no equal, with the value that turns them off.
        ignored: fields of a request that do not change the distribution of a token.
        check: refuses what no single rule can see; is called with the names of the steps.
    """

    name: str
    rules: Sequence[Rule]
    defaults: Mapping[str, Any]
    order: str = ""
    other_samplers: frozenset[str] = frozenset()
    lists_all: bool = False
    commuting: frozenset[frozenset[str]] = frozenset()
    differing: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    check: Callable[[Sequence[str]], None] = lambda _: None

    def write(self, steps: Sequence[Step]) -> dict[str, Any]:
        """Return the fields of a request that carries out the steps.

        Args:
            steps: name and parameters of each step, defaults included.

        Raises:
            ChainError: a step that the engine lacks or computes in another way, an order that it cannot follow, or
                two steps that need different values of one field.
            ParameterError: a parameter that the engine has no field for.
        """
        rules = [self._rule(name, parameters) for name, parameters in steps]
        self.check([rule.step for rule in rules])
        if not self.order:
            self._check_order([rule.step for rule in rules])
        data = {} if self.lists_all else {rule.switch: rule.neutral for rule in self.rules}
        owners: dict[str, str] = {}
        for rule, (name, parameters) in zip(rules, steps, strict=True):
            for key, value in rule.write(self.name, parameters).items():
                if key in owners and data[key] != value:
                    raise ChainError(
                        f"chain: {owners[key]} and {name} must agree on {key!r} for {self.name}, which has one field "
                        f"for both, got {data[key]!r} and {value!r}"
                    )
                data[key], owners[key] = value, name
        if self.order:
            data[self.order] = self._names([rule.sampler or rule.step for rule in rules])
        return data

    def read(self, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the steps that the engine carries out for the fields of a request, as chain data.

        Raises:
            ChainError: a field with a value that no chain has, such as a sampler that logitkit lacks.
            UnknownNameError: a field that the engine does not have.
        """
        known = {*self.defaults, *self.without, *self.ignored, *([self.order] if self.order else [])}
        for key, value in data.items():
            if key not in known:
                raise UnknownNameError(f"sampling field of {self.name}", key, known)
            if key in self.without and value != self.without[key] and value is not None:
                raise ChainError(
                    f"chain: {key} must be {self.without[key]!r}, because no step is equal to it, got {value!r}"
                )
        filled = {**self.defaults, **data}
        rules = list(self.rules)
        if self.order and data.get(self.order) is not None:
            rules = self._listed(data[self.order])
        read = [(rule.step, rule.read(filled)) for rule in rules]
        return [{"name": step, "params": parameters} for step, parameters in read if parameters is not None]

    def _rule(self, name: str, parameters: Mapping[str, Any]) -> Rule:
        """Return the rule of a step."""
        found = next((rule for rule in self.rules if rule.step == name), None)
        if found is None:
            why = self.differing.get(name, "which has no such sampler")
            raise ChainError(
                f"chain: every step must be one that {self.name} carries out, got {name}, {why}; "
                f"it has {', '.join(rule.step for rule in self.rules)}"
            )
        if parameters.get("gate") is not None:
            raise ChainError(f"chain: {self.name} has no gates, got a gate of {name}; leave gate out")
        return found

    def _check_order(self, names: Sequence[str]) -> None:
        """Refuse an order that the engine does not follow."""
        places = {rule.step: place for place, rule in enumerate(self.rules)}
        for later, name in enumerate(names):
            for before in names[:later]:
                if places[before] >= places[name] and frozenset((before, name)) not in self.commuting:
                    own = " | ".join(sorted(dict.fromkeys(names), key=places.__getitem__))
                    raise ChainError(
                        f"chain: the order must be that of {self.name} ({own}, each once), got {' | '.join(names)}"
                    )

    def _names(self, samplers: Sequence[str]) -> list[str]:
        """Return the list of samplers, in which neighbours of one name are one sampler."""
        names = [name for place, name in enumerate(samplers) if place == 0 or samplers[place - 1] != name]
        if len(set(names)) < len(names):
            raise ChainError(f"chain: {self.name} runs each sampler once, got the order {' | '.join(samplers)}")
        return names

    def _listed(self, names: Sequence[str]) -> list[Rule]:
        """Return the rules in the order of a list of samplers."""
        known = {rule.sampler or rule.step for rule in self.rules} | self.other_samplers
        for name in names:
            if name not in known:
                raise UnknownNameError(f"sampler of {self.name}", name, known)
        places = {name: place for place, name in enumerate(names)}
        listed = [rule for rule in self.rules if (rule.sampler or rule.step) in places]
        rest = [] if self.lists_all else [rule for rule in self.rules if rule not in listed]
        return rest + sorted(listed, key=lambda rule: places[rule.sampler or rule.step])
