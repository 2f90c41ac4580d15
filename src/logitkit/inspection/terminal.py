"""An inspection in the terminal: coloured text, and a table of the largest moves."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text

from logitkit.inspection.comparison import Comparison
from logitkit.inspection.formatting import format_bits, format_notes, visible_text
from logitkit.inspection.measurement import Inspection
from logitkit.inspection.moves import TokenProbabilities
from logitkit.tables import FittedTable

SHADES = ("default", "rgb(74,47,20)", "rgb(110,62,16)", "rgb(150,80,12)", "rgb(200,104,8)", "rgb(255,146,43)")
LEGEND = (0.001, 0.04, 0.16, 0.36, 1.0)  # bits; one value per shade


def terminal_view(shown: Inspection | Comparison, *, most: int = 10) -> Iterator[FittedTable | Text]:
    """Yield what to print with rich: the text, a legend, and a table of the ``most`` largest moves.

    A comparison prints its two sides, one below the other, each with its chain, and where they part.

    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "", max_new_tokens=3)
    >>> print(list(terminal_view(inspection))[-1])
    The chain left the distribution unchanged at every token.
    """
    if isinstance(shown, Inspection):
        yield from _side(shown, most)
        return
    for side in shown.sides:
        yield Text(side.chain, style="bold")
        yield from _side(side, most)
    if shown.equal:
        yield Text("Both chains wrote the same tokens.")
    elif shown.same_prompt:
        yield Text(f"Number of tokens at the beginning that are the same: {shown.shared}.")


def _side(inspection: Inspection, most: int) -> Iterator[FittedTable | Text]:
    """Yield the text, the legend and the table of one inspection."""
    text = Text()
    for move in inspection.moves:
        text.append(inspection.token_text(move.token), style=_style(move.js_bits, move.changed))
    yield text
    yield Text.assemble(
        ("moved, bits: ", "dim"),
        *((f" {value} ", _style(value, changed=False)) for value in LEGEND),
        ("  underlined: the most probable token changed", "dim"),
    )
    if any(marks := inspection.non_canonical or ()):
        named = [
            f"{n} {visible_text(inspection.token_text(inspection.moves[n].token))}"
            for n, mark in enumerate(marks)
            if mark
        ]
        yield Text(f"Tokens that the tokenizer would not write there: {', '.join(named)}")
    table = _table(inspection, most)
    yield table if table.rows else Text("The chain left the distribution unchanged at every token.")


def _table(inspection: Inspection, most: int) -> FittedTable:
    """Return a table of the largest moves; tokens that did not move are left out."""
    headings = ("token", "text", "bits", "before", "after", "notes")
    title = "Where the chain moved the distribution most"
    table = FittedTable(*headings, title=title, numbers=("token", "bits"))
    for number, move in inspection.most_moved(most):
        if move.js_bits > 0:
            notes = "; ".join(f"{step.processor}: {note}" for step in move.steps if (note := format_notes(step)))
            before, after = (_most_probable(inspection, tokens) for tokens in (move.before, move.after))
            name = visible_text(inspection.token_text(move.token))
            table.add_row(str(number), name, format_bits(move.js_bits), before, after, notes)
    return table


def _most_probable(inspection: Inspection, tokens: TokenProbabilities) -> str:
    """Return the three most probable tokens with their probabilities, one a line."""
    return "\n".join(
        f"{visible_text(inspection.token_text(token))} {probability:.2f}" for token, probability in tokens[:3]
    )


def _style(js_bits: float, changed: bool) -> str:
    """Return a style whose background has one of five depths by the root of the divergence, in a legible colour."""
    level = 0 if js_bits < 0.001 else min(5, 1 + int(math.sqrt(js_bits) * 5))
    ink = "default" if level == 0 else "white" if level < 4 else "black"
    return f"{ink} on {SHADES[level]}" + (" underline bold" if changed else "")
