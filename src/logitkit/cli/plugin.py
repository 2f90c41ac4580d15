"""A plugin of your own: ``logitkit new-plugin`` starts one, ``logitkit check`` runs the laws on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from logitkit.errors import ParameterError
from logitkit.registry.discovery import default_registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logitkit.registry.laws import LawResult
    from logitkit.registry.laws.modes import Cell


def check(
    subject: Annotated[str, typer.Argument(help="A processor's name, or module:Class of anyone's.")],
    modes: Annotated[bool, typer.Option("--modes", help="Try the ways of generating, too; a name only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the laws on one processor; exit status 1 when one is broken.

    Examples: check uscd; check "cfg(scale=2.0)"; check "transformers:TopKLogitsWarper(top_k=5)"; check my_file:factory
    """
    from logitkit.registry.laws import check_processor

    if "" not in sys.path:
        sys.path.insert(0, "")  # module:Class is looked up in this folder too
    if modes and (":" in subject or "(" in subject):
        raise ParameterError("check", "--modes", "asked of a processor's name", subject, "give it a Spec in a plugin")
    report = check_processor(subject)
    cells: list[Cell] = []
    if modes:
        from logitkit.registry.laws.modes import check_modes

        cells = check_modes(subject)
    failures = len(report.failures) + sum(bool(cell.fault) for cell in cells)
    if as_json:
        rows = [{"law": v.law, "kept": v.kept, "why": v.why, "declared": v.declared} for v in report.verdicts]
        told = {"subject": report.subject, "failures": failures, "laws": rows}
        typer.echo(json.dumps(told | ({"modes": [vars(cell) for cell in cells]} if modes else {}), indent=2))
    else:
        table = Table("law", "kept", "why", title=Text(report.subject))
        for verdict in report.verdicts:
            table.add_row(verdict.law, _mark(verdict), Text(verdict.declared or verdict.why))
        Console().print(table)
        if modes:
            Console().print(_modes(cells))
    raise typer.Exit(1 if failures else 0)


def _modes(cells: Sequence[Cell]) -> Table:
    """Ways of generating as a table."""
    table = Table("way of generating", "right", "why")
    for cell in cells:
        mark = "yes" if cell.right else "[red]NO[/]" if cell.fault else "refused"
        table.add_row(cell.mode, mark, Text(cell.fault or cell.refused))
    return table


def _mark(verdict: LawResult) -> str:
    """One word: kept, not, as declared, declared and yet kept, or nothing to try."""
    if verdict.declared:
        return "[red]KEPT[/]" if verdict.kept else "declared"
    if not verdict.kept:
        return "[red]NO[/]"
    return "-" if verdict.why else "yes"


def new_plugin(
    name: Annotated[str, typer.Argument(help="The processor's name, snake_case.")],
    folder: Annotated[Path | None, typer.Option(help="Where; by default ./logitkit-NAME.")] = None,
) -> None:
    """Write a plugin of your own: a processor, its Spec, its tests, ready to install."""
    from logitkit.cli.plugin_template import write_plugin

    where, files = write_plugin(name, default_registry(), folder)
    console = Console(highlight=False)
    for path in files:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(f"\nNow:\n  cd {where}\n  pip install -e '.[test]' && pytest", markup=False, soft_wrap=True)
    console.print(f"  logitkit check {name}\nThe formula is in {files[4].relative_to(where)}.", markup=False)
