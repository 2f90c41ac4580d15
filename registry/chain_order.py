"""Orders of steps that cannot mean what they say are refused when a chain is read."""

from __future__ import annotations

from collections.abc import Sequence

from logitkit.errors import ChainError
from logitkit.registry.spec import Spec


def check_order(specs: Sequence[Spec]) -> None:
    """Refuse a step at a place where the chain would discard its effect or the effect of another step.

    Raises:
        ChainError: names the two steps, the reason and the order to write.
    """
    for number, spec in enumerate(specs):
        earlier = [other.name for other in specs[:number]]
        if spec.discards and earlier:
            lost = ", ".join(earlier)
            raise ChainError(
                f"chain: {spec.name} must stand before {lost}, since it replaces the distribution and would discard "
                f"their effect; write {written([spec.name, *earlier])}"
            )
        truncating = [other.name for other in specs[:number] if other.truncates]
        if spec.forbids and truncating:
            raise ChainError(
                f"chain: {spec.name} must stand before {truncating[0]}, since {truncating[0]} may remove every token "
                f"that {spec.name} allows; write {written([spec.name, truncating[0]])}"
            )
        if spec.last and number < len(specs) - 1:
            following = specs[number + 1].name
            raise ChainError(
                f"chain: {spec.name} must be the last step, since it steers by the probabilities of the chosen tokens "
                f"and {following} would change them; write {written([following, spec.name])}"
            )


def written(names: Sequence[str]) -> str:
    """Return names as the text of a chain, each with parameters left open.

    >>> written(["grammar", "top_p"])
    'grammar(...) | top_p(...)'
    """
    return " | ".join(f"{name}(...)" for name in names)
