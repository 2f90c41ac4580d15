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
MOST_CHARACTERS = 10_000  # of one text
LONGEST_NAME = 100
# Line and paragraph separators, and the controls that reverse the direction of a line in a terminal.
MISLEADING = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Modes that no search and no selector can run under, in the words of their errors.
SEARCH_REFUSES = {
    "beams": "the search replaces beam search",
    "assisted": "the search runs its own loop",
    "prompt_lookup": "the search runs its own loop",
    "loglikelihood": "a search gives no probability to a text",
}


def check_name(kind: str, name: Any) -> None:
    """Refuse a name that a chain cannot hold.

    >>> check_name("Spec", "lambda")
    Traceback (most recent call last):
    logitkit.errors.ParameterError: Spec: name must be no keyword of Python, got 'lambda'; rename it
    """
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ParameterError(kind, "name", "snake_case", shown(name))
    if type(name) is not str or len(name) > LONGEST_NAME:
        raise ParameterError(kind, "name", f"a text of at most {LONGEST_NAME} characters", shown(name))
    if keyword.iskeyword(name):
        raise ParameterError(kind, "name", "no keyword of Python", name, "rename it")


def check_texts(owner: str, declaration: Any, parts: Iterable[str]) -> None:
    """Refuse fields that are no text, that are too long, or that a terminal or a table cannot show."""
    for part in parts:
        value = getattr(declaration, part)
        if type(value) is not str:  # a subclass may raise when it is printed
            raise ParameterError(owner, part, "a text", shown(value))
        if len(value) > MOST_CHARACTERS:
            raise ParameterError(owner, part, f"a text of at most {MOST_CHARACTERS} characters", shown(value))
        if not is_printable(value, lines=part in PARAGRAPHS):
            rule = "printable text" if part in PARAGRAPHS else "printable text in one line"
            raise ParameterError(owner, part, rule, shown(value))


def shown(value: Any) -> Any:
    """Return a value for an error message: itself, or a part of a long text, or its type where it has no text.

    >>> shown("abc" * 100) == "abc" * 26 + "..."
    True
    """
    if type(value) is str:
        return value if len(value) <= 80 else f"{value[:78]}..."
    try:
        return value if len(repr(value)) <= 200 else type(value)
    except Exception:
        return type(value)


def check_flags(owner: str, declaration: Any, parts: Iterable[str]) -> None:
    """Refuse fields other than True and False."""
    for part in parts:
        if not isinstance(getattr(declaration, part), bool):
            raise ParameterError(owner, part, "True or False", shown(getattr(declaration, part)))


def text_tuple(owner: str, part: str, value: Any) -> tuple[str, ...]:
    """Return a tuple of texts, given as a tuple or a list.

    Raises:
        ParameterError: any other value, such as a single text or a generator.
    """
    if not isinstance(value, (tuple, list)) or not all(_is_text(item) for item in value):
        raise ParameterError(owner, part, "a tuple of texts", shown(value))
    return tuple(value)


def text_mapping(owner: str, part: str, value: Any) -> dict[str, str]:
    """Return a copy of a mapping of texts to texts.

    Raises:
        ParameterError: any other value.
    """
    if not isinstance(value, Mapping) or not all(_is_text(text) for pair in value.items() for text in pair):
        raise ParameterError(owner, part, "a mapping of texts to texts", shown(value))
    return dict(value)


def _is_text(value: Any) -> bool:
    """Return whether a value is a printable text in one line of ordinary length."""
    return type(value) is str and len(value) <= MOST_CHARACTERS and is_printable(value)


def is_printable(text: str, *, lines: bool = False) -> bool:
    r"""Return whether a text has no control characters, no lone surrogates and nothing that reverses a line.

    Args:
        text: any text.
        lines: allow line breaks.

    >>> is_printable("[/INST]"), is_printable("\x1b[2J"), is_printable("a\nb", lines=True)
    (True, False, True)
    """
    return all(
        (unicodedata.category(character) not in ("Cc", "Cs") and character not in MISLEADING)
        or (lines and character == "\n")
        for character in text
    )
