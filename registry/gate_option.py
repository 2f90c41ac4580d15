"""The reserved option ``gate`` of every step: ``cfg(1.5, gate={'measure': 'entropy', 'above': 2.0})``.

A mapping is the reserved option. Any other value belongs to a parameter ``gate`` of the processor itself, as the number
of ``uscd(gate=0.894)`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from logitkit.errors import ParameterError
from logitkit.params import model_of, number, option, validate

GATE = "gate"
Measure = Literal[  # those of `logitkit.processors.engine.gate`, which imports torch
    "norm", "max", "margin", "entropy", "varentropy", "js", "kl", "reverse_kl", "renyi", "tv", "hellinger"
]
FIELDS: dict[str, tuple[Any, Any]] = {
    "measure": (Annotated[Measure, option("measure of the row, or of the row and the step's second stream")], ...),
    "above": (Annotated[float, number("the step acts where the measure is greater", infinite=True)], None),
    "below": (Annotated[float, number("the step acts where the measure is at most this", infinite=True)], None),
    "alpha": (Annotated[float, number("weight of js, order of renyi", infinite=True)], 0.5),
}
ALPHA_MEASURES = ("js", "renyi")
WAY_OUT = "write gate={'measure': 'entropy', 'above': 2.0}"


def split(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Return the parameters of the processor itself, and the reserved option or None.

    >>> split({"scale": 1.5, "gate": {"measure": "max", "below": 0.9}})
    ({'scale': 1.5}, {'measure': 'max', 'below': 0.9})
    >>> split({"gate": 0.894})
    ({'gate': 0.894}, None)
    """
    given = parameters.get(GATE)
    if not isinstance(given, Mapping):
        return dict(parameters), None
    return {name: value for name, value in parameters.items() if name != GATE}, given


def refuse_misplaced(spec: Any, own: Mapping[str, Any], gate: Mapping[str, Any] | None) -> None:
    """Refuse a gate that is no mapping, and a gate around a processor that rewrites the prompt.

    Raises:
        ParameterError: names the way out.
    """
    if GATE in own and GATE not in spec.model.model_fields:
        raise ParameterError(spec.name, GATE, "a mapping of measure, above or below", own[GATE], WAY_OUT)
    if gate is not None and spec.kind != "processor":
        raise ParameterError(spec.name, GATE, f"left out, since a {spec.kind} is no step", dict(gate))
    if gate is not None and spec.rewrites_prompt:
        rule = "left out, since the processor rewrites the prompt and must act at every step"
        raise ParameterError(spec.name, GATE, rule, dict(gate))


def check(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked gate, without defaults.

    Raises:
        UnknownNameError: a key that is none of measure, above, below and alpha.
        ParameterError: an unknown measure, both thresholds or none, a threshold that is no number, or an alpha that the
            measure does not take.

    >>> check("cfg", {"measure": "entropy", "above": 2})
    {'measure': 'entropy', 'above': 2.0}
    >>> check("cfg", {"measure": "entropy"})
    Traceback (most recent call last):
    logitkit.errors.ParameterError: cfg: gate must be a measure with exactly one of above and below, got \
{'measure': 'entropy'}; write gate={'measure': 'entropy', 'above': 2.0}
    """
    gate = validate(f"{owner}: gate", model_of("gate", FIELDS), given)
    if ("above" in gate) == ("below" in gate):
        rule = "a measure with exactly one of above and below"
        raise ParameterError(owner, GATE, rule, dict(given), WAY_OUT)
    if "alpha" in gate:
        kind, alpha = gate["measure"], gate["alpha"]
        if kind not in ALPHA_MEASURES:
            raise ParameterError(f"{owner}: gate", "alpha", f"left out for measure {kind!r}", alpha)
        if not (0 < alpha < 1 if kind == "js" else alpha >= 0):
            rule = "a weight > 0 and < 1 for js" if kind == "js" else "an order >= 0 for renyi"
            raise ParameterError(f"{owner}: gate", "alpha", rule, alpha)
    return gate


def filled(gate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked gate with the default of alpha where the measure takes one.

    >>> filled({"measure": "js", "above": 0.1})
    {'measure': 'js', 'above': 0.1, 'alpha': 0.5}
    """
    default = {"alpha": FIELDS["alpha"][1]} if gate["measure"] in ALPHA_MEASURES else {}
    return {**gate, **{key: value for key, value in default.items() if key not in gate}}


def wrapped(processor: Any, name: str, gate: Mapping[str, Any], binding: Any) -> Any:
    """Return a processor behind a gate.

    Args:
        processor: as its Spec built it.
        name: of the step.
        gate: as `check` returned it.
        binding: the `Binding` of the call.

    Raises:
        ParameterError: a measure of two streams for a processor without exactly one second stream.
    """
    from logitkit.processors.engine.gate import Gate
    from logitkit.processors.engine.gated import Gated

    return Gated(processor, gate=Gate(**gate), name=name, prompts=binding.prompts, trace=binding.trace)
