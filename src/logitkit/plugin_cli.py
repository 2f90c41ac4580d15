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

from logitkit.registry.discovery import default_registry

if TYPE_CHECKING:
    from logitkit.registry.laws import Verdict


def check(
    subject: Annotated[str, typer.Argument(help="A processor's name, or module:Class of anyone's.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the laws on one processor; exit status 1 when one is broken.

    Examples: check uscd; check "cfg(scale=2.0)"; check "transformers:TopKLogitsWarper(top_k=5)"; check my_file:factory
    """
    from logitkit.registry.laws import check_processor

    if "" not in sys.path:
        sys.path.insert(0, "")  # module:Class is looked up in this folder too
    report = check_processor(subject)
    if as_json:
        rows = [{"law": v.law, "kept": v.kept, "why": v.why, "declared": v.declared} for v in report.verdicts]
        typer.echo(json.dumps({"subject": report.subject, "failures": len(report.failures), "laws": rows}, indent=2))
    else:
        table = Table("law", "kept", "why", title=Text(report.subject))
        for verdict in report.verdicts:
            table.add_row(verdict.law, _mark(verdict), Text(verdict.declared or verdict.why))
        Console().print(table)
    raise typer.Exit(1 if report.failures else 0)


def _mark(verdict: Verdict) -> str:
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
    from logitkit.plugin_template import write_plugin

    where, files = write_plugin(name, default_registry(), folder)
    console = Console(highlight=False)
    for path in files:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(f"\nNow:\n  cd {where}\n  pip install -e '.[test]' && pytest", markup=False, soft_wrap=True)
    console.print(f"  logitkit check {name}\nThe formula is in {files[4].relative_to(where)}.", markup=False)
