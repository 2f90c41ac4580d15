"""Continuations of a text to try after a token: the cut of a pretokenizer can depend on the characters that follow."""

from __future__ import annotations

from collections.abc import Sequence

from logitkit.processors.tokens.pretokenizer import Pretokenizer

# Texts after a token: the empty text, and one character of each class that known patterns distinguish.
SAMPLE_CONTINUATIONS = ("", "a", " ", "1", ".", "\n", "s", "A", "一", "'")


def continuations(pretokenizer: Pretokenizer, before: str, text: str, ends: Sequence[str]) -> tuple[str, ...]:
    """Return the continuations to try after a token with this text and an incomplete character that may follow it.

    After the character that completes the token one more character is tried, because a cut before white space
    depends on the character after the white space. Behind the apostrophe of a contraction, the letters of the pattern
    are tried.

    Args:
        pretokenizer: the pretokenizer.
        before: the text before the token.
        text: the whole characters of the token.
        ends: characters that can complete the last one of the token; empty where it is complete.
    """
    if ends:
        return (*ends, *(char + more for char in ends for more in SAMPLE_CONTINUATIONS[1:3]))
    if pretokenizer.literal.open(before + text):
        return SAMPLE_CONTINUATIONS + pretokenizer.literal.texts
    # A heuristic: after two classes of characters, known patterns depend on a few more characters at most.
    mixed = len({pretokenizer.class_of(char) for char in text}) > 1
    return SAMPLE_CONTINUATIONS[:3] if mixed else SAMPLE_CONTINUATIONS
