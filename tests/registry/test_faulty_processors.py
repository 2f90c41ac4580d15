"""Errors for faulty third-party processors name the distribution and what to change."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import torch
from transformers import LogitsProcessor

from logitkit.errors import PluginError, ScoresError
from logitkit.params import Parameters, number
from logitkit.registry import Chain, Plugin, Registry, Spec
from logitkit.registry.laws import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from fractions import Fraction

WHO = r"odd \(from dist-odd 1.2\): "


class Fine(LogitsProcessor):
    """Returns the scores unchanged."""

    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


class Rho(Parameters):
    """Parameters that `Fine` does not have."""

    rho: Annotated[float, number("nothing", ge=0)] = 0.5


class Unknowable(Fine):
    def __init__(self, *, strength: Fraction) -> None:
        self.strength = strength


class FailsToBuild(Fine):
    def __init__(self, *, strength: float = 1.0) -> None:
        self.table = {}["missing"]


class FailsToBind(Fine):
    @classmethod
    def bind(cls, binding: Any, *, strength: float = 1.0) -> Any:
        return binding.no_such_thing


class BindsNothing(Fine):
    @classmethod
    def bind(cls, binding: Any, *, strength: float = 1.0) -> Any:
        cls(strength=strength)


class BindsLess(Fine):
    @classmethod
    def bind(cls, binding: Any) -> Any:
        return cls()


class Raises(Fine):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores[:, 10**9]


class WantsMore(Fine):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return scores


class ReturnsNothing(Fine):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        pass


class ReturnsHalf(Fine):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores[:, :100]


class ForbidsAll(Fine):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that generates with a chain of one third-party processor."""
    module = types.ModuleType("their_module")
    module.__dict__.update({kind.__name__: kind for kind in Fine.__subclasses__()}, Fine=Fine)
    monkeypatch.setitem(sys.modules, "their_module", module)

    def generate(kind: type, chain: str = "odd()", **more: Any) -> Any:
        spec = Spec(name="odd", summary="s", source="s", target=f"their_module:{kind.__name__}", **more)
        registry = Registry([Plugin(name="p", origin="dist-odd 1.2", specs=(spec.offered_by("dist-odd 1.2"),))])
        call = Chain(chain, registry=registry).bind(tiny_model(), tiny_tokenizer(), "a prompt")
        return call.generate(max_new_tokens=2, do_sample=False)

    return generate


def test_a_sound_one_runs(run: Any) -> None:
    """A correct processor generates, so the errors below come from the faults."""
    assert run(Fine, "odd(strength=0.3)").shape[1] == 10


FAULTS = {
    Unknowable: "the annotations of their_module:Unknowable must state.*NameError.*'Fraction'.*; import the names",
    FailsToBuild: r"must build with \{'strength': 1.0\}, got KeyError: 'missing'; correct its constructor",
    FailsToBind: "their_module:FailsToBind must build with .*AttributeError.*no_such_thing.*; correct its constructor",
    BindsNothing: "must return a processor, got None; return it",
    BindsLess: r"their_module:BindsLess.bind must accept its declared .*'strength'; align constructor and bind",
    Raises: r"__call__ must accept rows \[1, 8\] and scores \[1, 272\], got IndexError: .*; correct __call__, ",
    WantsMore: "__call__ must accept .*TypeError: .*missing 1 required positional argument: 'mask'",
    ReturnsNothing: r"__call__ must return scores \[1, 272\], got None; return all of them",
    ReturnsHalf: r"__call__ must return scores \[1, 272\], got scores \[1, 100\]; return all of them",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_names_the_plugin_its_version_and_what_to_change(run: Any, kind: type) -> None:
    """Each fault raises a PluginError with the distribution, the fault and the remedy."""
    with pytest.raises(PluginError, match=f"{WHO}.*{FAULTS[kind]}"):
        run(kind)


def test_parameters_that_do_not_match_the_constructor(run: Any) -> None:
    """Parameters that the Spec declares and the constructor lacks raise a PluginError."""
    says = r"their_module:Fine must accept its declared parameters \['rho'\].*'rho'; align Spec and constructor"
    with pytest.raises(PluginError, match=WHO + says):
        run(Fine, "odd(rho=0.3)", parameters=Rho)


def test_a_row_without_a_choice_names_who_made_it(run: Any) -> None:
    """A row of -inf alone raises a ScoresError that names the processor and its distribution."""
    with pytest.raises(ScoresError, match=r"only -inf in row 0 from odd \(from dist-odd 1.2\)"):
        run(ForbidsAll)


def test_memory_that_is_used_up_stays_that_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An out-of-memory error is not wrapped, so that callers can retry with a smaller batch."""

    def full(self: Any, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Fine, "__call__", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(Fine)
