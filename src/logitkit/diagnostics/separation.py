"""How well a score separates two groups: the area under the receiver operating characteristic, with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from logitkit.errors import ParameterError

Z = 1.959963984540054  # of an interval of 95 %
HALVINGS = 60  # of the interval in which a limit is looked for


class AreaUnderCurve(NamedTuple):
    """An area under the curve.

    Attributes:
        value: probability that a member scores higher than another text, ties counted half; 0.5 tells nothing.
        low, high: limits of its interval of 95 %.

    Example:
        >>> AreaUnderCurve(0.7, 0.6, 0.8).value
        0.7
    """

    value: float
    low: float
    high: float


def area_under_curve(members: Sequence[float], others: Sequence[float]) -> AreaUnderCurve:
    """Return the area under the curve of two groups of scores.

    The interval is method 5 of Newcombe, Statistics in Medicine 25 (2006) 559: the areas whose own standard error
    makes the observed one likely. It is no point when the groups are separated perfectly.

    Args:
        members: scores of the group that is expected to score higher.
        others: scores of the other group.

    Raises:
        ParameterError: a group is empty, or a score is NaN.

    Example:
        >>> [round(number, 3) for number in area_under_curve([3.0, 2.0], [1.0, 2.0])]
        [0.875, 0.3, 0.991]
    """
    for name, group in (("members", members), ("others", others)):
        if not len(group) or np.isnan(group).any():
            raise ParameterError("area_under_curve", name, "at least one score, none of them NaN", list(group))
    first, second = np.asarray(members, dtype=float)[:, None], np.asarray(others, dtype=float)[None]
    value = float(((first > second) + 0.5 * (first == second)).mean())
    pairs, balance = first.size * second.size, (first.size + second.size) / 2 - 1

    def excess(area: float) -> float:
        """Return by how much the observed area is further from another one than an interval reaches."""
        spread = 1 + balance * (1 - area) / (2 - area) + balance * area / (1 + area)
        return (value - area) ** 2 - Z**2 * area * (1 - area) * spread / pairs

    return AreaUnderCurve(value, _limit(excess, 0.0, value), _limit(excess, 1.0, value))


def _limit(excess: Callable[[float], float], outer: float, inner: float) -> float:
    """Return where ``excess`` changes its sign between an end of the scale, where it is >= 0, and the area."""
    if math.isclose(outer, inner):
        return inner
    for _ in range(HALVINGS):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if excess(middle) > 0 else (outer, middle)
    return (outer + inner) / 2
