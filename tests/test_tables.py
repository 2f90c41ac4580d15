"""Tables: words are never cut, lines fit the terminal, and a pipe gets one line for each row."""

from __future__ import annotations

from io import StringIO

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from logitkit.tables import FittedTable, print_fitted

WORDS = st.lists(st.text("abc0.[]/", min_size=1, max_size=14), max_size=6).map(" ".join)


def shown(table: FittedTable, width: int) -> str:
    """Return what a terminal of this width receives, without colours."""
    out = StringIO()
    print_fitted(Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False), table)
    return out.getvalue()


def table_of(rows: list[list[str]], optional: list[str]) -> FittedTable:
    """Return a table of three columns."""
    table = FittedTable("name", "what", "size", optional=optional)
    for row in rows:
        table.add_row(*row)
    return table


@settings(max_examples=40)
@given(
    rows=st.lists(st.lists(WORDS, min_size=3, max_size=3), min_size=1, max_size=4),
    width=st.integers(16, 90),
    optional=st.sampled_from([[], ["size"], ["size", "what"]]),
)
def test_words_are_whole_and_lines_fit(rows: list[list[str]], width: int, optional: list[str]) -> None:
    """Every word is on one line, every line fits, and what is left out is named."""
    text = shown(table_of(rows, optional), width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    words = " ".join(text.split())  # the remark is wrapped too
    out = words.split("Left out at this width: ")[1].split(", ") if "Left out" in words else []
    assert set(out) <= set(optional)
    kept = [number for number, heading in enumerate(("name", "what", "size")) if heading not in out]
    words = text.replace("│", " ").split()
    for row in rows:
        assert {word for number in kept for word in row[number].split()} <= set(words)


def test_a_table_that_fits_is_a_table() -> None:
    """By hand: at 40 columns the text is broken between its words; at 30 the optional column goes."""
    table = table_of([["cfg", "Prefer what a prompt changes.", "12 MB"]], ["size"])
    assert "│ cfg  │ Prefer what a prompt  │ 12 MB │" in shown(table, 40)
    narrow = shown(table, 30)
    assert "Left out at this width: size" in narrow and "12" not in narrow


def test_rows_become_paragraphs_where_columns_do_not_fit() -> None:
    """The first cell is the heading; an empty cell is left out."""
    table = FittedTable("strategy", "accuracy", "difference")
    table.add_row("uscd(rho=0.7)", "0.512", "[-0.012,+0.034]")
    table.add_row("plain", "0.500", "")
    assert [line.rstrip() for line in shown(table, 30).splitlines()] == [
        "strategy: uscd(rho=0.7)",
        "  accuracy: 0.512",
        "  difference: [-0.012,+0.034]",
        "strategy: plain",
        "  accuracy: 0.500",
    ]


def test_empty_columns_are_not_shown() -> None:
    """A column of notes that nobody wrote takes no room; lines of a cell become a list in a paragraph."""
    table = FittedTable("token", "before", "notes")
    table.add_row("3", "␣short 0.34\n␣hear 0.13", "")
    assert "notes" not in shown(table, 40) and "│ 3     │ ␣short 0.34 │" in shown(table, 40)
    assert "before: ␣short" in shown(table, 16)


def test_a_pipe_gets_one_line_for_each_row() -> None:
    """However long: no frame, no colour, no line break, no markup."""
    out = StringIO()
    table = table_of([["[red]cfg[/]", "long " * 40, "1"], ["top_p", "two\nlines", "2"]], [])
    table.add_row(Text("min_p", style="red"), "x", "3")
    print_fitted(Console(file=out, width=40), table)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 and lines[1].startswith("[red]cfg[/]  long long") and "two lines" in lines[2]
    assert lines[3].split() == ["min_p", "x", "3"] and "\x1b" not in out.getvalue()
