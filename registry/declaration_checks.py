"""Checks of what plugins declare: the types of the fields of a Spec or TaskSpec, and texts that can be printed."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from logitkit.errors import ParameterError

NAME = r"[a-z][a-z0-9_]*"
PARAGRAPHS = ("formula", "cost", "failure")  # texts that may have several lines


def check_name(kind: str, name: Any) -> None:
    """Refuse a name that a chain cannot hold.

    >>> check_name("Spec", "lambda")
    Traceback (most recent call last):
    logitkit.errors.ParameterError: Spec: name must be no keyword of Python, got 'lambda'; rename it
    """
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ParameterError(kind, "name", "snake_case", name)
    if keyword.iskeyword(name):
        raise ParameterError(kind, "name", "no keyword of Python", name, "rename it")


def check_texts(owner: str, declaration: Any, parts: Iterable[str]) -> None:
    """Refuse fields that are no text, or that hold characters which a terminal or a table cannot show."""
    for part in parts:
        value = getattr(declaration, part)
        if not isinstance(value, str):
            raise ParameterError(owner, part, "a text", value)
        if not is_printable(value, lines=part in PARAGRAPHS):
            rule = "printable text" if part in PARAGRAPHS else "printable text in one line"
            raise ParameterError(owner, part, rule, value)


def check_flags(owner: str, declaration: Any, parts: Iterable[str]) -> None:
    """Refuse fields other than True and False."""
    for part in parts:
        if not isinstance(getattr(declaration, part), bool):
            raise ParameterError(owner, part, "True or False", getattr(declaration, part))


def text_tuple(owner: str, part: str, value: Any) -> tuple[str, ...]:
    """Return a tuple of texts, given as a tuple or a list.

    Raises:
        ParameterError: any other value, such as a single text or a generator.
    """
    if not isinstance(value, (tuple, list)) or not all(isinstance(item, str) and is_printable(item) for item in value):
        raise ParameterError(owner, part, "a tuple of texts", value)
    return tuple(value)


def text_mapping(owner: str, part: str, value: Any) -> dict[str, str]:
    """Return a copy of a mapping of texts to texts.

    Raises:
        ParameterError: any other value.
    """
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and is_printable(text) for pair in value.items() for text in pair
    ):
        raise ParameterError(owner, part, "a mapping of texts to texts", value)
    return dict(value)


def is_printable(text: str, *, lines: bool = False) -> bool:
    r"""Return whether a text has no control characters and no lone surrogates.

    Args:
        text: any text.
        lines: allow line breaks.

    >>> is_printable("[/INST]"), is_printable("\x1b[2J"), is_printable("a\nb", lines=True)
    (True, False, True)
    """
    return all(
        unicodedata.category(character) not in ("Cc", "Cs") or (lines and character == "\n") for character in text
    )
