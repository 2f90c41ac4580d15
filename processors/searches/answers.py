"""Answers in one spelling, so that equal answers can be counted."""

from __future__ import annotations

import string
import unicodedata


def normalised_answer(text: str) -> str:
    r"""Return a text in one spelling: Unicode NFKC, small letters, single spaces, no punctuation at its ends.

    Signs inside the text stay, and so does a sign before a number.

    >>> normalised_answer("  The answer\n is 42. "), normalised_answer("-3.5"), normalised_answer("...")
    ('the answer is 42', '-3.5', '')
    """
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    signs = string.punctuation + " "
    stripped = words.rstrip(signs).lstrip(signs)
    before = words[: words.find(stripped)] if stripped else ""
    return f"-{stripped}" if before.endswith("-") and stripped[:1].isdigit() else stripped
