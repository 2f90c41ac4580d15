"""Shared parts of the pages of evidence: the split of items, paired comparisons with their power, and the pages.

The half of an item follows from its name alone, so that a longer run never moves an item. Settings are chosen on the
development half; every comparison that a page reports is made on the held-out half, or where nothing was chosen on all
items. `comparison_table` corrects for all comparisons of a table (Holm) and states what each could have seen.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import typer

from logitkit.bench.report import Spread, bootstrap_interval, holm, sign_flips
from logitkit.errors import ParameterError
from studies import command
from studies.intervals import interval_text
from studies.tables import markdown_table

Half = Literal["development", "held-out"]
POWER = 0.8  # with which a difference is shown that a table says it could have seen
RESULTS = re.compile(r"(<!-- results: (\w+) -->).*?(<!-- end -->)", re.DOTALL)


def _existing(path: Path | None) -> Path | None:
    """Return the path of a page; raise before the study begins if it does not exist."""
    if path is not None and not path.is_file():
        raise ParameterError(command.study_name(), "page", "an existing file", str(path), "name a page of results")
    return path


Page = Annotated[Path | None, typer.Option(help="Page whose tables are replaced.", callback=_existing)]


class PairedDifferences(NamedTuple):
    """A comparison: what is compared, its unit, and the difference of every item."""

    comparison: str
    unit: str
    differences: Sequence[float]


def item_id(text: str) -> str:
    """Return a short name of an item made of a text of a data set, which results files do not repeat.

    Examples:
        >>> item_id("Who wrote the play Hamlet?")
        'bb4ac74fc05c'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def half_of(item: str, share: float = 1 / 3) -> Half:
    """Return the half of an item, drawn from a hash of its name.

    Items that are taken in the order of the same hash would all be of one half at first.

    Args:
        item: a name that identifies the item within its data set.
        share: share of the items that are for development.

    Examples:
        >>> [half_of(f"question {number}") for number in range(4)]
        ['held-out', 'development', 'held-out', 'held-out']
    """
    draw = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8], "big") / 2**64
    return "development" if draw < share else "held-out"


def smallest_seen(differences: Sequence[float], comparisons: int = 1) -> float:
    """Return the smallest true mean difference that a paired test at 5 % shows in 80 % of such samples.

    Not a number if all differences are equal, which say nothing about their spread.

    Args:
        differences: the difference of every item.
        comparisons: number of comparisons that are corrected for together.

    Examples:
        >>> round(smallest_seen([-1.0, 1.0] * 50), 3), round(smallest_seen([-1.0, 1.0] * 50, comparisons=10), 3)
        (0.284, 0.374)
    """
    deviation = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    seen = (
        Spread(deviation=deviation).smallest_difference(len(differences), power=POWER, comparisons=comparisons)
        if deviation
        else None
    )
    return math.nan if seen is None else seen


def items_to_see(differences: Sequence[float], difference: float, comparisons: int = 1) -> str:
    """Return the number of items with which a mean difference would be shown.

    Args:
        differences: the difference of every item.
        difference: the true mean difference.
        comparisons: number of comparisons that are corrected for together.

    Examples:
        >>> items_to_see([-1.0, 1.0] * 50, 0.1), items_to_see([-1.0, 1.0] * 50, 0.1, comparisons=6)
        ('795', '1227')
    """
    deviation = float(np.std(differences, ddof=1))
    spread = Spread(deviation=deviation) if deviation else None
    items = spread.items_needed(difference, power=POWER, comparisons=comparisons) if spread else None
    return "unknown" if items is None else str(items)


def comparison_table(compared: Sequence[PairedDifferences], form: str = "+.3f") -> str:
    """Return paired differences with intervals, corrected p-values and power.

    Args:
        compared: the comparisons of one table, over which p-values are corrected.
        form: format of the differences.
    """
    ps = holm([sign_flips(np.asarray(one.differences, dtype=float)) for one in compared])
    rows = [
        [
            one.comparison,
            one.unit,
            str(len(one.differences)),
            interval_text(bootstrap_interval(one.differences), form),
            f"{p:.3f}" if p >= 0.001 else "<0.001",
            f"{smallest_seen(one.differences, len(compared)):{form.lstrip('+')}}".replace("nan", "unknown"),
        ]
        for one, p in zip(compared, ps, strict=True)
    ]
    headings = ["difference", "unit", "items", "mean, 95 %", "p (Holm)", "seen with 80 % power"]
    return markdown_table(headings, rows)


def publish(results: dict[str, str], page: Path | None) -> None:
    """Print the tables of a study, and write them into its page where one is given."""
    typer.echo("\n\n".join(results.values()))
    if page is not None:
        write_results(page, results)


def write_results(page: Path, results: dict[str, str]) -> None:
    """Replace the parts of a page between ``<!-- results: NAME -->`` and ``<!-- end -->``; others stay as they are."""
    text = page.read_text(encoding="utf-8")
    page.write_text(
        RESULTS.sub(
            lambda part: f"{part[1]}\n\n{results[part[2]]}\n\n{part[3]}" if part[2] in results else part[0], text
        ),
        encoding="utf-8",
    )
