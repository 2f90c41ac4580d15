"""Tables on a terminal of any width, and as plain lines in a pipe; words, names and numbers are never cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Cell = str | Text
COMFORT = 18  # columns of text that are narrower are hard to read


class FittedTable:
    """A table for `rich` that fits the width of the console.

    Cells are broken between words alone, and columns without a text are not shown. Where the words of all columns do
    not fit side by side, columns named in ``optional`` are dropped, the first of them first, and a line below the
    table names them. Where the others do not fit either, each row becomes a paragraph with one line per cell.

    Args:
        headings: the headings of the columns.
        title: text above the table.
        optional: headings of columns that may be dropped.
        numbers: headings of columns that are aligned on the right.

    >>> table = FittedTable("name", "size", title="Models")
    >>> table.add_row("small", "135 MB")
    >>> table.plain_lines()
    ['Models', 'name   size', 'small  135 MB']
    """

    def __init__(
        self, *headings: str, title: str = "", optional: Sequence[str] = (), numbers: Sequence[str] = ()
    ) -> None:
        self.headings, self.title, self.optional, self.numbers = list(headings), title, list(optional), set(numbers)
        self.rows: list[tuple[list[Text], str]] = []

    def add_row(self, *cells: Cell, style: str = "") -> None:
        """Add a row; text without a style of its own is plain text, not markup."""
        self.rows.append(([cell if isinstance(cell, Text) else Text(cell) for cell in cells], style))

    def plain_lines(self) -> list[str]:
        """Return the title, the headings and one line for each row, in columns; for pipes and files."""
        lines = [self.headings, *([" ".join(cell.plain.split()) for cell in cells] for cells, _ in self.rows)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        padded = ["  ".join(_padded(cell, width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return [self.title] * bool(self.title) + [line.rstrip() for line in padded]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or the paragraphs."""
        filled = [not self.rows or any(cells[number].plain for cells, _ in self.rows) for number in self._numbers()]
        shown, dropped = [number for number in self._numbers() if filled[number]], []
        for heading in [*(each for each in self.optional if filled[self.headings.index(each)]), ""]:
            widths = self._widths(shown, options.max_width, COMFORT if heading else 0)
            if widths is not None or not heading:
                break
            dropped.append(heading)
            shown.remove(self.headings.index(heading))
        if widths is None:
            yield from self._paragraphs()
            return
        table = Table(title=Text(self.title) if self.title else None)
        for number, width in zip(shown, widths, strict=True):
            right = self.headings[number] in self.numbers
            table.add_column(Text(self.headings[number]), width=width, justify="right" if right else "left")
        for cells, style in self.rows:
            table.add_row(*(cells[number] for number in shown), style=style)
        yield table
        if dropped:
            yield Text(f"Left out at this width: {', '.join(dropped)}", style="dim")

    def _numbers(self) -> range:
        """Return the numbers of the columns."""
        return range(len(self.headings))

    def _widths(self, shown: Sequence[int], available: int, comfort: int) -> list[int] | None:
        """Return the widths of columns that fit, or None when their longest words, or ``comfort`` columns, do not."""
        columns = [[self.headings[number], *(cells[number].plain for cells, _ in self.rows)] for number in shown]
        least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
        widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
        least = [max(word, min(comfort, width)) for word, width in zip(least, widths, strict=True)]
        room = available - 3 * len(shown) - 1  # two spaces and one line for each column, and a line at the edge
        if sum(least) > room:
            return None
        while sum(widths) > room:  # the widest column that can still be broken gives way
            widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=widths.__getitem__)
            widths[widest] -= 1
        return widths

    def _paragraphs(self) -> RenderResult:
        """Yield the title and, for each row, the first cell and one line for each other cell that is not empty."""
        if self.title:
            yield Text(self.title, style="italic")
        for cells, style in self.rows:
            yield Text.assemble((f"{self.headings[0]}: " if self.headings[0] else "") + cells[0].plain, style="bold")
            for heading, cell in zip(self.headings[1:], cells[1:], strict=True):
                if cell.plain:
                    text = Text.assemble((f"{heading}: ", "dim"), Text(", ").join(cell.split("\n")), style=style)
                    yield Padding(text, (0, 0, 0, 2))


def print_fitted(console: Console, table: FittedTable) -> None:
    """Print a table: fitted to the width of a terminal, one line for each row anywhere else."""
    if console.is_terminal:
        console.print(table)
        return
    for line in table.plain_lines():
        console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _padded(cell: str, width: int) -> str:
    """Return a cell with spaces up to a width in columns of the terminal."""
    return cell + " " * (width - cell_len(cell))
