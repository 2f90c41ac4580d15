"""The parameters of a target: every rule and default that the class states holds, wherever it is stated."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit import describe
from logitkit.cli.plugin_template import write_plugin
from logitkit.errors import ParameterError, PluginError
from logitkit.params import checked, number, whole
from logitkit.registry import Registry, Spec
from logitkit.registry.laws import check_processor

ROOT = Path(__file__).parents[2]
Strength = Annotated[float, number("strength", ge=0, le=2, neutral=0)]


class Raises(LogitsProcessor):
    """States the rule and the default in its constructor."""

    @checked
    def __init__(self, *, strength: Strength = 1.5) -> None:
        self.strength = strength

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores if self.strength == 0 else scores * (1 + self.strength)


class Repeats(Raises):
    @classmethod
    def bind(cls, binding: Any, *, strength: float = 1.5) -> Repeats:
        return cls(strength=strength)


class NamesOnly(Raises):
    @classmethod
    def bind(cls, binding, *, strength):  # type: ignore[no-untyped-def]
        return cls(strength=strength)


class RuleInBind(Raises):
    """Has the rule in ``bind``; the parameter of the constructor has no annotation."""

    def __init__(self, *, strength) -> None:  # type: ignore[no-untyped-def]
        self.strength = strength

    @classmethod
    def bind(cls, binding: Any, *, strength: Strength = 1.5) -> RuleInBind:
        return cls(strength=strength)


class PlainConstructor(RuleInBind):
    """Has the rule in the inherited ``bind``; the constructor states the type alone."""

    def __init__(self, *, strength: float) -> None:
        self.strength = strength


class PassesOn(Raises):
    """Hides the parameters of the base class behind ``**`` arguments."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class PassesOnBoth(Repeats):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)

    @classmethod
    def bind(cls, binding: Any, **options: Any) -> PassesOnBoth:
        return cls(**options)


class WithoutAnnotation(Raises):
    """Repeats a parameter of the base class without its rule."""

    def __init__(self, *, strength=1.5, **options: Any) -> None:  # type: ignore[no-untyped-def]
        super().__init__(strength=strength, **options)


class Made(LogitsProcessor):
    """Is made by ``__new__``."""

    strength: float

    def __new__(cls, *, strength: Strength = 1.5) -> Made:
        made = super().__new__(cls)
        made.strength = strength
        return made

    __call__ = Raises.__call__


KEEP: list[type] = [
    Raises,
    Repeats,
    NamesOnly,
    RuleInBind,
    PlainConstructor,
    PassesOn,
    PassesOnBoth,
    WithoutAnnotation,
    Made,
]


def spec_of(kind: type, **fields: Any) -> Spec:
    """The Spec of a class of this module."""
    return Spec(name="tried", summary="s", source="here", target=f"{kind.__module__}:{kind.__name__}", **fields)


def module_of(path: Path, name: str) -> Any:
    """A module, imported from its file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", KEEP, ids=lambda kind: kind.__name__)
def test_the_rule_holds_wherever_it_is_stated(kind: type) -> None:
    """The schema has the range, the default and the neutral value; a value outside the range is refused."""
    schema = spec_of(kind).as_data()["parameters"]["properties"]["strength"]
    expected = {"minimum": 0, "maximum": 2, "neutral": 0, "default": 1.5, "description": "strength"}
    assert {key: schema.get(key) for key in expected} == expected
    with pytest.raises(ParameterError, match="strength must be a finite number >= 0 and <= 2, got 3"):
        spec_of(kind).check({"strength": 3.0})


@pytest.mark.parametrize("kind", [NamesOnly, RuleInBind, PassesOnBoth], ids=lambda kind: kind.__name__)
def test_the_neutral_value_is_tested(kind: type) -> None:
    """The law on neutral values tests a value that is declared in one of the two places."""
    (result,) = check_processor(spec_of(kind), laws=["is_identity_when_neutral"]).results
    assert result.kept and result.reason == ""


class OtherDefault(Raises):
    @classmethod
    def bind(cls, binding: Any, *, strength: float = 0.5) -> OtherDefault:
        return cls(strength=strength)


class OtherRule(Raises):
    @classmethod
    def bind(cls, binding: Any, *, strength: Annotated[float, number("strength", ge=0)]) -> OtherRule:
        return cls(strength=strength)


class OtherType(Raises):
    @classmethod
    def bind(cls, binding: Any, *, strength: str) -> OtherType:
        return cls(strength=float(strength))


class TrueForOne(LogitsProcessor):
    def __init__(self, *, count: Annotated[int, whole("count")] = 1) -> None: ...

    @classmethod
    def bind(cls, binding: Any, *, count: int = True) -> TrueForOne:
        return cls(count=count)

    __call__ = Raises.__call__


class Open(LogitsProcessor):
    def __init__(self, **options: Any) -> None: ...

    __call__ = Raises.__call__


class WrongOrder(Raises):
    order: Sequence[str] = ("power",)


REFUSED: dict[type, str] = {
    OtherDefault: "strength must have one default, got 1.5 in __init__ and 0.5 in bind; remove the default of bind",
    OtherRule: "strength must have one rule, got 'a finite number >= 0 and <= 2' in __init__ and "
    "'a finite number >= 0' in bind; give the parameter of bind its plain type",
    OtherType: "strength must have one rule, got 'a finite number >= 0 and <= 2' in __init__ and 'text' in bind",
    TrueForOne: "count must have one default, got 1 in __init__ and True in bind",
    Open: r"the constructor must name its parameters, got \*\*options; name them, or give the Spec parameters=",
    WrongOrder: r"the attribute order must name parameters \(strength\), got 'power'",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_contradictions_are_refused_and_both_sides_named(kind: type) -> None:
    """A default or a rule of ``bind`` that differs from that of ``__init__`` is an error, not dropped."""
    with pytest.raises(PluginError, match=f"tried.*{kind.__name__}: {REFUSED[kind]}"):
        _ = spec_of(kind).model


class Callee(Protocol):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor: ...


class OfTorch(torch.nn.Module):
    """Inherits the constructor of Module, which takes anything and uses nothing."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores


class OfProtocol(Callee):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores


@pytest.mark.parametrize("kind", [OfTorch, OfProtocol], ids=lambda kind: kind.__name__)
def test_constructors_of_libraries_are_no_parameters(kind: type) -> None:
    """A class without a constructor of its own has no parameters."""
    assert spec_of(kind).model.model_fields == {}


def test_the_third_party_example_keeps_its_rules() -> None:
    """The weight of the example has the range and the default of its constructor, though ``bind`` names it too."""
    folder = ROOT / "examples/third_party/second_stream/src/logitkit_blend"
    kind = module_of(folder / "processor.py", "blend_processor").Blend
    weight = spec_of(kind).as_data()["parameters"]["properties"]["weight"]
    assert (weight["minimum"], weight["exclusiveMaximum"], weight["default"], weight["neutral"]) == (0, 1, 0.3, 0)


def test_the_plugin_template_keeps_its_rules(tmp_path: Path) -> None:
    """The class of the template keeps its rule, also once its author adds a ``bind``."""
    written = write_plugin("quiet_words", Registry([]), tmp_path)
    kind = module_of(written.processor, "quiet_words_processor").QuietWords
    kind.bind = classmethod(lambda cls, binding, *, strength: cls(strength=strength))
    strength = spec_of(kind).as_data()["parameters"]["properties"]["strength"]
    assert (strength["minimum"], strength["default"], strength["neutral"]) == (0, 0.5, 0)
    (result,) = check_processor(spec_of(kind), laws=["is_identity_when_neutral"]).results
    assert result.kept and result.reason == ""


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("crossover", ["other", "threshold", "budget"]),
        ("cad", ["alpha", "context"]),
        ("cascade", ["large", "rule"]),
        ("mti", ["negative", "scale", "threshold"]),
        ("xtc", ["threshold", "probability", "seed"]),  # bind takes the seed
    ],
)
def test_a_stream_of_the_constructor_keeps_the_place_of_the_model_that_bind_takes(name: str, first: list[str]) -> None:
    """The order of parameters without names is that of the whole signature, streams included."""
    assert list(describe(name).model.model_fields)[: len(first)] == first
