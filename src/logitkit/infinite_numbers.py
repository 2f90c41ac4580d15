"""Infinite numbers in plain data: JSON has none, so chains write them as the texts "inf" and "-inf"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def as_text(value: Any) -> Any:
    """Return a value of plain data with infinite numbers as the texts "inf" and "-inf", which JSON can hold.

    >>> import math
    >>> as_text({"above": math.inf, "list": [1.5, -math.inf]})
    {'above': 'inf', 'list': [1.5, '-inf']}
    """
    if isinstance(value, Mapping):
        return {key: as_text(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(as_text, value))
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def from_text(value: Any) -> Any:
    """Return the infinite number that a text names; any other value as it is.

    >>> from_text("-inf"), from_text(2.0), from_text("text")
    (-inf, 2.0, 'text')
    """
    return float(value) if value in ("inf", "-inf") else value
