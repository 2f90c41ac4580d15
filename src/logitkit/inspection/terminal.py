"""An inspection for the terminal: coloured text, and the tokens that moved most."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from logitkit.inspection.inspection import Inspection, Likeliest, bits, noted, visible

SHADES = ("default", "rgb(74,47,20)", "rgb(110,62,16)", "rgb(150,80,12)", "rgb(200,104,8)", "rgb(255,146,43)")


def shown(found: Inspection, *, most: int = 10) -> Iterable[RenderableType]:
    """What to print, in order: the text, a legend, and a table of the ``most`` moved tokens."""
    text = Text()
    for move in found.moves:
        text.append(found.spelled(move.token), style=_style(move.js_bits, move.changed))
    yield text
    yield Text.assemble(
        ("moved, bits: ", "dim"),
        *((f" {value} ", _style(value, changed=False)) for value in (0.001, 0.04, 0.16, 0.36, 1.0)),
        ("  underlined: a new likeliest token", "dim"),
    )
    table = Table("token", "text", "bits", "before", "after", "noted", title="Where the chain moved most")
    for number, move in found.most_moved(most):
        if move.js_bits > 0:
            notes = "; ".join(f"{step.processor}: {said}" for step in move.steps if (said := noted(step)))
            tops = [Text(_tops(found, each)) for each in (move.before, move.after)]
            name = Text(visible(found.spelled(move.token)))
            table.add_row(str(number), name, bits(move.js_bits), *tops, Text(notes))
    if table.row_count:
        yield table
    else:
        yield Text("The chain left the distribution as it was at every token.")


def _tops(found: Inspection, likeliest: Likeliest) -> str:
    """The three likeliest tokens with their probabilities."""
    return "  ".join(f"{visible(found.spelled(token))} {p:.2f}" for token, p in likeliest[:3])


def _style(value: float, changed: bool) -> str:
    """A background by the root of the divergence, in five steps; white or black on it, whichever reads better."""
    level = 0 if value < 0.001 else min(5, 1 + int(math.sqrt(value) * 5))
    ink = "default" if level == 0 else "white" if level < 4 else "black"
    return f"{ink} on {SHADES[level]}" + (" underline bold" if changed else "")
