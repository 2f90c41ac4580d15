"""How tokens, divergences and notes are written on the page and in the terminal."""

from __future__ import annotations

import math

from logitkit.processors.engine.trace import Step

_SYMBOLS = {" ": "␣", "\n": "⏎", "\t": "⇥"}
_NAMES = {" ": "space", "\n": "line break", "\t": "tab"}


def visible_text(text: str) -> str:
    r"""Return the text of a token with symbols for white space and escapes for control characters.

    >>> visible_text(" a\n")
    '␣a⏎'
    """
    return "".join(_SYMBOLS.get(sign) or (sign if sign.isprintable() else ascii(sign)[1:-1]) for sign in text)


def spoken_text(text: str) -> str:
    """Return the text of a token for a screen reader; a token of white space alone is spelled in words.

    >>> spoken_text(" a"), spoken_text("  ")
    ('a', 'space, space')
    """
    return visible_text(text.strip()) or ", ".join(_NAMES.get(sign, ascii(sign)) for sign in text) or "nothing"


def format_bits(value: float) -> str:
    """Return a divergence in bits with three decimals; a positive value is never shown as 0.

    >>> format_bits(0.25), format_bits(0.0004), format_bits(0.0)
    ('0.250', '<0.001', '0')
    """
    return "0" if value <= 0 else "<0.001" if value < 0.001 else f"{value:.3f}"


def format_information(bits: float) -> str:
    """Return an entropy or a surprisal in bits with one decimal; a positive value is never shown as 0.

    >>> format_information(3.14), format_information(0.01), format_information(0.0), format_information(float("inf"))
    ('3.1', '<0.1', '0', 'infinite')
    """
    return "infinite" if math.isinf(bits) else "0" if bits <= 0 else "<0.1" if bits < 0.1 else f"{bits:.1f}"


def format_percent(probability: float) -> str:
    """Return a probability in percent; a positive value is never shown as 0.

    >>> format_percent(0.25), format_percent(0.0001), format_percent(0.0)
    ('25.0%', '<0.1%', '0')
    """
    return f"{probability:.1%}" if probability >= 0.0005 else "<0.1%" if probability > 0 else "0"


def format_notes(step: Step) -> str:
    """Return what a processor noted at a step, such as ``gate 0.8, fired yes``; empty without notes."""
    values = {
        name: ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"
        for name, value in step.notes.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
