"""Text and tables that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from logitkit.tables import FittedTable, print_fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logitkit.processors.engine.trace import Step


def escape_markup(text: str) -> str:
    r"""Return the text with rich's markup escaped, also behind a backslash.

    >>> escape_markup("[red]")
    '\\[red]'
    """
    return escape(text)


def print_line(text: str, *, stderr: bool = False) -> None:
    """Print text without markup, highlighting or line breaks at the width of the terminal."""
    Console(stderr=stderr, highlight=False).print(text, markup=False, soft_wrap=True)


def print_remark(text: str) -> None:
    """Print text on standard error; a terminal breaks it between words."""
    console = Console(stderr=True, highlight=False)
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def print_details(heading: str, lines: Sequence[str]) -> None:
    """Print a heading and indented lines; a terminal breaks them between words and keeps the indent."""
    console = Console(highlight=False)
    console.print(Text(heading, style="bold"), soft_wrap=not console.is_terminal)
    for line in lines:
        if console.is_terminal:
            console.print(Padding(Text(line), (0, 0, 0, 2)))
        else:
            console.print(Text(f"  {line}"), soft_wrap=True)


def print_table(table: FittedTable | Text, *, stderr: bool = False) -> None:
    """Print a table, or a sentence in its place; anywhere but on a terminal, each row is one line of plain text."""
    console = Console(stderr=stderr, highlight=False)
    if isinstance(table, FittedTable):
        print_fitted(console, table)
    else:
        console.print(table, soft_wrap=not console.is_terminal)


def with_origin(summary: str, plugin: str) -> Text:
    """Return a summary, followed by the distribution that offers what it describes, unless that is logitkit.

    >>> with_origin("Forbid tokens.", "logitkit-quiet 0.1.0").plain
    'Forbid tokens. (logitkit-quiet 0.1.0)'
    """
    return Text(summary if plugin == "logitkit" else f"{summary} ({plugin})")


def largest_changes(steps: Sequence[Step], tokenizer: Any, count: int = 5) -> FittedTable | Text:
    """Return a table of the steps at which the chain changed the distribution most, the largest change first.

    Where nothing changed, a sentence says so.
    """
    from logitkit.inspection.formatting import format_bits

    changed = [step for step in steps if step.js_bits > 0]
    if not changed:
        return Text("The chain left the distribution unchanged at every token.")
    title = "Where the chain changed the distribution most"
    headings = ("token", "processor", "JS, bits", "before", "after")
    table = FittedTable(*headings, title=title, numbers=("token", "JS, bits"))
    for step in sorted(changed, key=lambda step: -step.js_bits)[:count]:
        before, after = (_most_probable(tokenizer, tokens) for tokens in (step.before, step.after))
        table.add_row(str(step.position), step.processor, format_bits(step.js_bits), before, after)
    return table


def _most_probable(tokenizer: Any, tokens: tuple[tuple[int, float], ...]) -> str:
    """Return the three most probable tokens with their probabilities, one a line."""
    from logitkit.inspection.formatting import visible_text

    return "\n".join(
        f"{visible_text(tokenizer.decode([token]))} {probability:.2f}" for token, probability in tokens[:3]
    )
