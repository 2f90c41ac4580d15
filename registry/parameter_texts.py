"""Texts in the values of parameters, which may name models, tables and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def names_in(parameters: Mapping[str, Any], chosen: tuple[str, ...]) -> list[str]:
    """Return every text in the values of the chosen parameters, in order and each once.

    >>> names_in({"models": ["a", "b", "a"], "align": "gac"}, ("models", "large"))
    ['a', 'b']
    """
    return list(dict.fromkeys(text for name in chosen if name in parameters for text in _texts(parameters[name])))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value of texts, lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
