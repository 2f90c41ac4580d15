"""Which target a chain asks of sequential Monte Carlo, with the models, function or constraints that it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from logitkit.errors import ModeError, ParameterError
from logitkit.processors.engine.byte_models import OverBytes, byte_helpers
from logitkit.processors.engine.constraints import Constraint
from logitkit.processors.searches.rejection import Rejected
from logitkit.processors.searches.targets import Combined, Constrained, Target, Weighted, power_mean, product

if TYPE_CHECKING:
    from logitkit.processors.engine.binding import Binding

OF_MODELS = ("product", "min", "power_mean")


@dataclass(frozen=True, eq=False)
class TargetChoice:
    """The target of an ``smc`` step.

    Attributes:
        target: name of the target.
        models: names of the other models; None: none are given.
        weights: of the generating model and of the models; None: equal ones, with sum 1.
        exponent: of ``power_mean``.
        log_weight: name of the function of the user; None: none is given.
        predicate: name of the function that says which rows are viable; None: none is given.
    """

    target: str
    models: list[str] | None
    weights: list[float] | None
    exponent: float
    log_weight: str | None
    predicate: str | None

    def bound(self, binding: Binding) -> tuple[Callable[[], Target] | None, Sequence[Any]]:
        """Return what makes the target of a run, None for ``power``, and the constraint steps that it carries out.

        Raises:
            ParameterError: parameters of another target, or none that this target needs.
            ModelError: a model with another tokenizer.
            ModeError: a step behind a constraint whose strength depends on the history of the row.
        """
        self._check()
        if self.target == "power":
            return None, ()
        if self.target == "constraint":
            return self._constrained(binding)
        if self.target == "log_weight":
            name = str(self.log_weight)
            function = _function(binding, "log_weight", name)
            return lambda: Weighted(function, name), ()
        own = binding.own_prompts()
        streams = [binding.reader(own, model=model, label=f"smc {name}") for name, model in self._models(binding)]
        combine = self._combine(len(streams) + 1)
        return lambda: Combined(combine, streams), ()

    def _models(self, binding: Binding) -> list[tuple[str, Any]]:
        """Return the other models by name: over bytes where the generating model is, else with its tokenizer.

        Raises:
            ModelError: a model with another tokenizer, where the generating model is over tokens.
        """
        names = self.models or []
        if isinstance(binding.model, OverBytes):
            return byte_helpers(binding, "smc", names)
        return [(name, binding.model_with_same_vocabulary(name, "smc")) for name in names]

    def _check(self) -> None:
        """Refuse parameters that do not belong to the target, and their absence."""
        of_models = self.target in OF_MODELS
        if of_models and not self.models:
            raise ParameterError("smc", "models", f"one or more other models for target {self.target!r}", self.models)
        if self.models and not of_models:
            raise ParameterError("smc", "models", f"left out for target {self.target!r}", self.models)
        if (self.log_weight is None) == (self.target == "log_weight"):
            rule = "the name of a function" if self.target == "log_weight" else f"left out for target {self.target!r}"
            raise ParameterError("smc", "log_weight", rule, self.log_weight)
        if self.predicate is not None and self.target != "constraint":
            raise ParameterError("smc", "predicate", f"left out for target {self.target!r}", self.predicate)
        if self.weights is not None:
            count = 1 + len(self.models or ())
            if self.target not in ("product", "power_mean"):
                raise ParameterError("smc", "weights", f"left out for target {self.target!r}", self.weights)
            if len(self.weights) != count or not all(weight > 0 for weight in self.weights):
                rule = f"{count} numbers > 0, of the generating model and of each of the models"
                raise ParameterError("smc", "weights", rule, self.weights)
        if self.target == "power_mean" and self.exponent == 0:
            raise ParameterError(
                "smc", "exponent", "a finite number other than 0", self.exponent, "use target='product'"
            )

    def _combine(self, count: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the mean of the probabilities of this many models."""
        if self.target == "min":
            return functools.partial(torch.amin, dim=0)
        weights = torch.tensor(self.weights or [1 / count] * count, dtype=torch.float64)
        if self.target == "product":
            return functools.partial(product, weights=weights)
        return functools.partial(power_mean, weights=weights / weights.sum(), exponent=self.exponent)

    def _constrained(self, binding: Binding) -> tuple[Callable[[], Target], Sequence[Any]]:
        """Return the target of the constraint steps before the search and of the predicate, and these steps."""
        steps = [step for _, step in binding.preceding if isinstance(step, Constraint)]
        predicate = self.predicate
        function = None if predicate is None else _function(binding, "predicate", predicate)
        if not steps and function is None:
            names = ", ".join(name for name, _ in binding.preceding) or "no step"
            way_out = (
                "write grammar(...) | smc(target='constraint'), or give a predicate; a constraint behind a gate does "
                "not count"
            )
            raise ParameterError("smc", "target", "'constraint' with a constraint step before smc", names, way_out)
        places = (place for place, (_, step) in enumerate(binding.preceding) if isinstance(step, Constraint))
        first = next(places, len(binding.preceding))
        if any(place > first for place in binding.histories):
            name = binding.preceding[next(place for place in binding.histories if place > first)][0]
            raise ModeError(
                f"smc: with target 'constraint', {name} must not stand behind a constraint, since its strength follows "
                f"from probabilities under the mask; put {name} before the constraint, or leave it out"
            )
        if predicate is not None and function is not None:
            return lambda: Rejected(function, predicate, steps), steps
        return lambda: Constrained(steps), steps


def _function(binding: Binding, parameter: str, name: str) -> Callable[[torch.Tensor], Any]:
    """Return the function that was passed to bind under a name.

    Raises:
        ParameterError: no function.
    """
    function = binding.resource(name)
    if not callable(function):
        raise ParameterError("smc", parameter, "the name of a function of rows of token ids", name)
    return function  # type: ignore[no-any-return]
