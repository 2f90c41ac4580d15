"""Text and tables that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

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


def listing(*headings: str) -> Table:
    """Return an empty table whose cells are complete at every width; its first column, the names, is never broken.

    >>> [column.no_wrap for column in listing("name", "source").columns]
    [True, False]
    """
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == headings[0])
    return table


def with_origin(summary: str, plugin: str) -> Text:
    """Return a summary, followed by the distribution that offers what it describes, unless that is logitkit.

    >>> with_origin("Forbid tokens.", "logitkit-quiet 0.1.0").plain
    'Forbid tokens. (logitkit-quiet 0.1.0)'
    """
    return Text(summary if plugin == "logitkit" else f"{summary} ({plugin})")


def largest_changes(steps: Sequence[Step], tokenizer: Any, count: int = 5) -> Table:
    """Return a table of the steps at which the chain changed the distribution most, the largest change first."""
    title = "Where the chain changed the distribution most"
    table = Table("token", "processor", "JS, bits", "before", "after", title=title)
    for step in sorted(steps, key=lambda step: -step.js_bits)[:count]:
        before, after = (_most_probable(tokenizer, tokens) for tokens in (step.before, step.after))
        table.add_row(str(step.position), step.processor, f"{step.js_bits:.3f}", before, after)
    return table


def _most_probable(tokenizer: Any, tokens: tuple[tuple[int, float], ...]) -> Text:
    """Return the three most probable tokens with their probabilities."""
    return Text("  ".join(f"{tokenizer.decode([token])!r} {probability:.2f}" for token, probability in tokens[:3]))
