"""Warns of steps that can change no score for the prompts to which a chain is bound."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from logitkit.errors import NoEffectWarning
from logitkit.infinite_numbers import from_text
from logitkit.params import is_neutral
from logitkit.registry.spec import Spec


def warn_of_no_effect(steps: Sequence[tuple[Spec, Mapping[str, Any]]], reported: Mapping[str, tuple[str, str]]) -> None:
    """Give one `NoEffectWarning` that names every step without effect, the reason and the way out.

    A step that replaces a setting of `generate`, such as ``temperature(1.0)``, and any other warper has the effect that
    the settings of the model's configuration are off.

    Args:
        steps: Spec and parameters of each step.
        reported: reason and way out of steps that have found out themselves, by name; a reason that begins with the
            name is a sentence of its own.
    """
    found = dict(reported) | {spec.name: neutral for spec, given in steps for neutral in _neutral(spec, given)}
    if found:
        sentences = (
            f"{reason if reason.startswith(f'{name} ') else f'{name} changes nothing: {reason}'}; {way_out}"
            for name, (reason, way_out) in found.items()
        )
        warnings.warn("\n".join(sentences), NoEffectWarning, stacklevel=_callers_level())


def warn_of_greedy_decoding(specs: Sequence[Spec]) -> None:
    """Warn where greedy decoding takes the token that it would take without the chain.

    Args:
        specs: of the steps. A chain of steps with `Spec.keeps_best` alone does not change the best token.
    """
    if specs and all(spec.keeps_best for spec in specs):
        names = " | ".join(spec.name for spec in specs)
        warnings.warn(
            f"{names} changes nothing: greedy decoding takes the most probable token, which the chain keeps; set "
            f"do_sample=True, or leave {names} out",
            NoEffectWarning,
            stacklevel=_callers_level(),
        )


def warn_of_unused_sampling(search: str) -> None:
    """Warn where a call asks a search to sample that draws no token.

    Args:
        search: name of the search.
    """
    warnings.warn(
        f"do_sample=True changes nothing: {search} draws no token; leave it out, or choose another search",
        NoEffectWarning,
        stacklevel=_callers_level(),
    )


def _neutral(spec: Spec, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield reason and way out for each parameter that has its neutral value."""
    if spec.replaces or spec.warper:
        return
    for name, value in spec.filled(parameters).items():
        extra = spec.model.model_fields[name].json_schema_extra
        neutral = from_text(extra.get("neutral")) if isinstance(extra, dict) else None
        if not isinstance(value, (int, float)) or not isinstance(neutral, (int, float)):
            continue
        if is_neutral(value, neutral):
            yield (f"{name} {value!r} is its neutral value", f"give another value, or leave {spec.name} out")


def _callers_level() -> int:
    """Return the ``stacklevel`` of the first caller outside logitkit, seen from the function that warns."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "logitkit":
        frame, level = frame.f_back, level + 1
    return level
