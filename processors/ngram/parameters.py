"""Parameters that `NgramStyle` and `NgramContext` share, with their rules and help texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.params import Resource, number, option, whole
from logitkit.processors.engine.trace import Trace
from logitkit.processors.ngram.formulas import default_order_weights

Weight = Annotated[float, number("weight of the evidence; below 0 the style is avoided", ge=-1, le=1, neutral=0)]
OrderWeights = Annotated[
    list[float] | None, option("one weight for each order; None: in the proportion 1 : 3 : 6 : 10 : 15, with sum 1")
]
PseudoCount = Annotated[float, number("pseudo-count of the rules lift, log((count + k) / k), and literal", gt=0)]
Top = Annotated[
    int | None,
    whole("number of most frequent tokens after each context that have evidence; None: all, rule literal: 512", ge=1),
]
CapBits = Annotated[float | None, number("largest move of a token's score, in bits; None: unlimited", gt=0)]
Plausible = Annotated[
    float, number("a token moves only if it has at least this share of the largest probability; 0: all", ge=0, le=1)
]
Once = Annotated[bool, option("n-grams of the longest order give no evidence once the continuation contains them")]
TargetJS = Annotated[
    float | None,
    number(
        "choose each row's weight, at most the full weight, to move the row by this JS divergence in bits", gt=0, lt=1
    ),
]
Groups = Annotated[Callable[[Tensor], Tensor] | None, Resource()]
OptionalTrace = Annotated[Trace | None, Resource()]


def checked_order_weights(order_weights: list[float] | None, orders: int) -> list[float]:
    """Return the weights of the orders, or the default weights for None.

    Raises:
        ParameterError: not one weight for each order, a negative or infinite weight, or all weights are 0.

    Example:
        >>> checked_order_weights(None, 2)
        [0.25, 0.75]
    """
    weights = default_order_weights(orders) if order_weights is None else list(order_weights)
    if len(weights) != orders or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        must = f"{orders} numbers >= 0, one for each order of the table, not all 0"
        raise ParameterError("ngram_style", "order_weights", must, order_weights)
    return weights
