"""Rules that several engines share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from logitkit.errors import ChainError, ParameterError
from logitkit.registry.engines.translation import Rule

KEEP_ONE = {"min_tokens_to_keep": 1}
NEW_TOKENS = {"window": None, "prompt": False}  # penalties that count the tokens of the answer


def zero(value: Any) -> bool:
    """Return whether a value is 0 or less."""
    return bool(value <= 0)


def one(value: Any) -> bool:
    """Return whether a value is 1 or more."""
    return bool(value >= 1)


@dataclass(frozen=True, kw_only=True)
class Temperature(Rule):
    """A temperature; engines take 0 for greedy decoding, for which a chain has no step."""

    def read(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the parameters; None for the temperature 1."""
        if data[self.switch] <= 0:
            raise ChainError(
                f"chain: temperature must be above 0, got {data[self.switch]!r}; for greedy decoding leave it out "
                "and set do_sample=False"
            )
        return super().read(data)


@dataclass(frozen=True, kw_only=True)
class WindowedPenalty(Rule):
    """A penalty over the last tokens of prompt and answer, with one window for all penalties.

    Attributes:
        whole: value of the window's field for the whole text; None: the engine has none.
    """

    whole: int | None = None

    def write(self, engine: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields; a penalty over the whole text needs a value of the window that means it."""
        window = self.whole if parameters["window"] is None else parameters["window"]
        if window is None:
            raise ParameterError(self.step, "window", f"a number of tokens for {engine}", None, "give window=64, say")
        return super().write(engine, {**parameters, "window": window})

    def read(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the parameters; None where the engine leaves the step out."""
        read = super().read(data)
        if read is None or (self.whole is None and read["window"] == 0):
            return None
        return read | {"window": None if read["window"] == self.whole else read["window"]}


def temperature(**more: Any) -> Temperature:
    """Return the rule of `temperature`, whose field has the same name everywhere."""
    return Temperature(
        step="temperature",
        fields={"temperature": "temperature"},
        neutral=1.0,
        is_off=lambda value: value == 1,
        **more,
    )


def truncation(step: str, neutral: Any, **more: Any) -> Rule:
    """Return the rule of a truncation whose field has its name, and which keeps at least one token."""
    settings: dict[str, Any] = {"fields": {step: step}, "is_off": one if neutral == 1.0 else zero, "fixed": KEEP_ONE}
    return Rule(step=step, neutral=neutral, **{**settings, **more})


def new_token_penalty(step: str) -> Rule:
    """Return the rule of a penalty that counts the tokens of the answer."""
    fields = {"penalty": step}
    return Rule(step=step, fields=fields, neutral=0.0, is_off=lambda value: value == 0, fixed=NEW_TOKENS)
