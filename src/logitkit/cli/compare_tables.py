"""The tables of ``logitkit compare`` on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logitkit.cli.rendering import print_details, print_table
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from logitkit.diagnostics import ModelComparison
    from logitkit.diagnostics.comparison_summary import TokenRow

LISTED, FEW = 8, 5  # lines of the tables of tokens


def print_comparison(comparison: ModelComparison) -> None:
    """Print the facts, the quadrants, and the tokens that stand out."""
    from logitkit.diagnostics.comparison_summary import facts, most_critical, most_divergent, quadrant_sentence

    first, second = comparison.names
    print_details(f"{first} beside {second}", [f"{term}: {said}" for term, said in facts(comparison)])
    print_table(_quadrants(comparison))
    print_details("Quadrants", [quadrant_sentence(comparison)])
    unit = comparison.level
    divergent = most_divergent(comparison, LISTED)
    if not divergent:
        print_details("The models do not differ.", [])
        return
    print_table(_tokens(comparison, f"The most divergent {unit}", divergent, "JS, bits"))
    title = f"Critical {unit} by contrastive estimation"
    print_table(_tokens(comparison, title, most_critical(comparison, FEW), "log s, nats"))
    print_table(_moves(comparison))


def _quadrants(comparison: ModelComparison) -> FittedTable:
    """Return the table of the quadrants."""
    from logitkit.diagnostics.comparison_summary import share_text

    columns = ("quadrant", comparison.level, "share [95 %]", "of the divergence")
    table = FittedTable(*columns, numbers=(comparison.level,))
    for part in comparison.quadrants.quadrants:
        table.add_row(part.name, str(part.tokens), share_text(part.share), share_text(part.divergence))
    return table


def _tokens(comparison: ModelComparison, title: str, rows: list[TokenRow], column: str) -> FittedTable:
    """Return a table of tokens; ``column`` names the number by which they are ordered."""
    from logitkit.inspection.formatting import format_bits, visible_text

    several = len(comparison.texts) > 1
    first, second = comparison.names
    headings = ("no.", "after", comparison.level[:-1], column, first, second)
    table = FittedTable(*headings, title=title, optional=("after",), numbers=("no.", column))
    for row in rows:
        number = format_bits(row.js_bits) if column.startswith("JS") else f"{row.contrast:.2f}"
        tops = [f"{visible_text(name)} {p:.2f}" for name, p in row.likeliest]
        place = f"{row.text}/{row.place}" if several else str(row.place)
        table.add_row(place, visible_text(row.before), visible_text(row.piece), number, *tops)
    return table


def _moves(comparison: ModelComparison) -> FittedTable:
    """Return the table of the tokens that gain and lose most probability over all places."""
    from logitkit.diagnostics.comparison_summary import largest_moves
    from logitkit.inspection.formatting import visible_text

    title = f"Probability gained and lost in {comparison.names[1]}, summed"
    table = FittedTable("gains", "by", "loses", "by ", title=title, numbers=("by", "by "))
    gaining, losing = largest_moves(comparison, FEW)
    for number in range(max(len(gaining), len(losing))):
        sides = [moves[number] if number < len(moves) else None for moves in (gaining, losing)]
        table.add_row(
            *(cell for side in sides for cell in ((visible_text(side[0]), f"{side[1]:+.2f}") if side else ("", "")))
        )
    return table
