"""Parameters that several ensembles share, with their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from logitkit.errors import ParameterError
from logitkit.params import number, option, whole
from logitkit.processors.ensemble.helper_models import PromptTexts

Models = Annotated[
    list[str], option("helper models: names passed to bind, known models, hub ids or folders; [] for none")
]
Align = Annotated[
    str | list[str],
    option(
        "exact, mined, unite, gac, embedding, bytes, a .safetensors file or a name passed to bind; "
        "one for all helpers, or one a helper"
    ),
]
HelperPrompts = Annotated[
    dict[str, PromptTexts] | None,
    option("own prompts of helpers, by name; None: the prompts of the call, in each helper's template"),
]
TopK = Annotated[
    int,
    whole("number of likeliest tokens of each model to use; 0: all (unite: 10, embedding: 320)", ge=0),
]
Gate = Annotated[
    float,
    number("helpers are used where the main model's largest probability is at most this", ge=0, le=1, neutral=0),
]


def checked_weights(owner: str, weights: Sequence[float] | None, count: int) -> list[float]:
    """Return the weights as floats; equal weights for None.

    Args:
        owner: name of the processor, for the error.
        weights: one for each model, the main model's first, ``>= 0``.
        count: number of models.

    Raises:
        ParameterError: another number of weights, a negative or infinite weight, only zeros.

    >>> checked_weights("ensemble", None, 2)
    [1.0, 1.0]
    """
    values = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(values) != count or min(values) < 0 or not 0 < sum(values) < float("inf"):
        rule = f"{count} finite numbers >= 0 (the generating model's first), not all 0"
        raise ParameterError(owner, "weights", rule, weights)
    return values
