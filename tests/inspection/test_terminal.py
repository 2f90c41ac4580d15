"""The terminal view of an inspection."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from inspections import inspect_foreign_model, inspect_tiny_model
from logitkit.inspection import Comparison, terminal_view
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


def test_the_terminal_shows_both_sides() -> None:
    """A comparison prints each chain above its text, and where they part."""
    plain, hot = inspect_tiny_model(""), inspect_tiny_model("temperature(0.3)")
    printed = [str(part) for part in terminal_view(Comparison(first=hot, second=plain))]
    assert printed[0] == "temperature(temperature=0.3)" and "plain decoding" in printed
    assert printed[-1] == "Both chains wrote the same tokens."
    short = inspect_tiny_model("", max_new_tokens=5)
    assert str(list(terminal_view(Comparison(first=hot, second=short)))[-1]).endswith("the same: 5.")


def test_the_terminal_names_tokens_that_the_tokenizer_would_not_write() -> None:
    """A line with number and text of each; none where all are the tokenizer's own."""
    inspection = inspect_foreign_model("temperature(2.0)")
    start = "Tokens that the tokenizer would not write there: "
    (line,) = (str(part) for part in terminal_view(inspection) if str(part).startswith(start))
    numbers = [int(part.split()[0]) for part in line.removeprefix(start).split(", ")]
    assert numbers == [number for number, mark in enumerate(inspection.non_canonical or ()) if mark]
    clean = inspect_foreign_model("canonical() | temperature(2.0)")
    assert not any(str(part).startswith(start) for part in terminal_view(clean))
