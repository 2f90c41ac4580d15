"""How tokens, divergences and notes are written on the page and in the terminal."""

from __future__ import annotations

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


def format_notes(step: Step) -> str:
    """Return what a processor noted at a step, such as ``gate 0.8, fired yes``; empty without notes."""
    values = {
        name: ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"
        for name, value in step.notes.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
