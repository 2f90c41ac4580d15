"""Markdown tables of the studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    Examples:
        >>> print(markdown_table(["model", "accuracy"], [["small", "0.5"]]))
        | model | accuracy |
        |---|---|
        | small | 0.5 |
    """
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
