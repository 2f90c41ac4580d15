"""Temperatures as logits processors. The formulas are in `logitkit.processors.samplers.temperature`."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import checked, number
from logitkit.processors.samplers.temperature import dynamic_temperature, entropy_temperature, quadratic

__all__ = ["DynamicTemperature", "EntropyTemperature", "Quadratic"]


class DynamicTemperature(LogitsProcessor):
    """A temperature that grows with the entropy of the row, as `dynamic_temperature` computes it.

    Args:
        low: temperature of a sure row, at least 0; at 0 the most probable token alone stays.
        high: temperature of a uniform row, at least ``low``. With both 1 the scores are returned unchanged.
        exponent: at least 0; a larger one lowers the temperature between the two.

    Raises:
        ParameterError: a parameter is outside its range, or ``high`` is below ``low``.

    Example:
        >>> import torch
        >>> processor = DynamicTemperature(low=0.5, high=2.0)
        >>> processor(torch.tensor([[7]]), torch.tensor([[1.0, 1.0], [1.0, -40.0]]))  # uniform, and sure
        tensor([[  0.5000,   0.5000],
                [  2.0000, -80.0000]])
    """

    @checked
    def __init__(
        self,
        *,
        low: Annotated[float, number("temperature of a row of entropy 0; 1 together with high: no effect", ge=0)] = 0.5,
        high: Annotated[float, number("temperature of a uniform row, at least low", ge=0)] = 1.5,
        exponent: Annotated[float, number("power of the entropy, as a share of that of a uniform row", ge=0)] = 1.0,
    ) -> None:
        if high < low:
            raise ParameterError("dynamic_temperature", "high", f"at least low, which is {low}", high)
        self.low, self.high, self.exponent = low, high, exponent

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the divided scores, ``[rows, vocab]``."""
        return dynamic_temperature(scores, low=self.low, high=self.high, exponent=self.exponent)


class EntropyTemperature(LogitsProcessor):
    """A temperature that falls where the model is sure, arXiv:2403.14541, as `entropy_temperature` computes it.

    Args:
        temperature: of a row of infinite entropy, above 0.
        theta: strength, at least 0; 0 is a fixed temperature. With temperature 1 the scores are returned unchanged.
        base: above 0, below 1.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> processor = EntropyTemperature(temperature=1.0, theta=1.0)
        >>> processor(torch.tensor([[7]]), torch.tensor([[1.0, 1.0]]))  # 0.8 ** (1 / log 2) = 0.7248
        tensor([[1.3798, 1.3798]])
    """

    @checked
    def __init__(
        self,
        *,
        temperature: Annotated[float, number("temperature of a row of large entropy", gt=0)] = 1.0,
        theta: Annotated[float, number("nats at which the temperature is lowered by the base; 0: fixed", ge=0)] = 0.5,
        base: Annotated[float, number("factor of the temperature at an entropy of theta", gt=0, lt=1)] = 0.8,
    ) -> None:
        self.temperature, self.theta, self.base = temperature, theta, base

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the divided scores, ``[rows, vocab]``."""
        return entropy_temperature(scores, temperature=self.temperature, theta=self.theta, base=self.base)


class Quadratic(LogitsProcessor):
    """Quadratic or cubic sampling ("smooth sampling"), as `quadratic` computes it.

    Args:
        factor: at least 0; 0 returns the scores unchanged. Small factors flatten the row, large ones sharpen it.
        curve: 1, a parabola, to 3, a cubic.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> Quadratic(factor=0.5)(torch.tensor([[7]]), torch.tensor([[2.0, 1.0, -1.0]]))
        tensor([[ 2.0000,  1.5000, -2.5000]])
    """

    @checked
    def __init__(
        self,
        *,
        factor: Annotated[
            float, number("factor of the squared distance from the largest score", ge=0, neutral=0)
        ] = 0.3,
        curve: Annotated[float, number("1: parabola; 3: cubic", ge=1, le=3)] = 1.0,
    ) -> None:
        self.factor, self.curve = factor, curve

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the bent scores, ``[rows, vocab]``."""
        return quadratic(scores, factor=self.factor, curve=self.curve)
