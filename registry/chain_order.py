"""Orders of steps that cannot mean what they say are refused when a chain is read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from logitkit.errors import ChainError
from logitkit.registry.spec import Spec

PLACES = {"processor": 0, "search": 1, "selector": 2}


def check_order(specs: Sequence[Spec]) -> None:
    """Refuse a step at a place where the chain would discard its effect or the effect of another step.

    A chain is ``steps | search? | selector?``.

    Raises:
        ChainError: names the two steps, the reason and the order to write.
    """
    _check_kinds(specs)
    steps = [spec for spec in specs if spec.kind == "processor"]
    for number, spec in enumerate(steps):
        earlier = [other.name for other in steps[:number]]
        if spec.discards and earlier:
            lost = ", ".join(earlier)
            raise ChainError(
                f"chain: {spec.name} must stand before {lost}, since it replaces the distribution and would discard "
                f"their effect; write {written([spec.name, *earlier])}"
            )
        truncating = [other.name for other in steps[:number] if other.truncates]
        if spec.forbids and truncating:
            raise ChainError(
                f"chain: {spec.name} must stand before {truncating[0]}, since {truncating[0]} may remove every token "
                f"that {spec.name} allows; write {written([spec.name, truncating[0]])}"
            )
        if spec.last and number < len(steps) - 1:
            following = steps[number + 1].name
            raise ChainError(
                f"chain: {spec.name} must be the last step, since it steers by the probabilities of the chosen tokens "
                f"and {following} would change them; write {written([following, spec.name])}"
            )


def _check_kinds(specs: Sequence[Spec]) -> None:
    """Refuse two searches or two selectors, a search before a step, and a selector before a search or a step.

    Raises:
        ChainError: as said.
    """
    for first, second in itertools.pairwise(specs):
        if first.kind == second.kind != "processor":
            raise ChainError(
                f"chain: there must be at most one {first.kind}, got {first.name} and {second.name}; leave one out"
            )
        if PLACES[first.kind] > PLACES[second.kind]:
            kinds = sorted(specs, key=lambda spec: PLACES[spec.kind])
            raise ChainError(
                f"chain: {first.name} must stand behind {second.name}, since a chain is steps, then a search, then a "
                f"selector; write {written([spec.name for spec in kinds])}"
            )


def written(names: Sequence[str]) -> str:
    """Return names as the text of a chain, each with parameters left open.

    >>> written(["grammar", "top_p"])
    'grammar(...) | top_p(...)'
    """
    return " | ".join(f"{name}(...)" for name in names)
