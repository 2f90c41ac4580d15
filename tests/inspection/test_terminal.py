"""The terminal view of an inspection."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from inspections import inspect_tiny_model
from logitkit.inspection import terminal_view
from logitkit.inspection.formatting import format_bits


def test_the_terminal_shows_text_and_moves() -> None:
    """The terminal view holds coloured text and a table of the largest moves, or a sentence when nothing moved."""
    console = Console(width=160, record=True, file=StringIO(), force_terminal=True)
    inspection = inspect_tiny_model("temperature(0.3)")
    for part in terminal_view(inspection):
        console.print(part)
    printed = console.export_text(styles=True)
    assert (
        "Where the chain moved the distribution most" in printed
        and "\x1b[" in printed
        and format_bits(inspection.most_moved(1)[0][1].js_bits) in printed
    )
    plain = [str(part) for part in terminal_view(inspect_tiny_model(""))]
    assert plain[-1] == "The chain left the distribution unchanged at every token."
