"""``logitkit check``: run the laws on one processor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from logitkit.cli import options
from logitkit.cli.inputs import read_chain
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_details, print_remark, print_table
from logitkit.errors import ParameterError
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.template_texts import unedited
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logitkit.registry.laws import LawResult, ModeResult, Report

EXAMPLES = (
    "logitkit check uscd",
    'logitkit check "cfg(scale=2.0)"',
    'logitkit check "transformers:TopKLogitsWarper(top_k=5)"',
    "logitkit check top_p --modes",
)
SURROUNDINGS = "tiny models with random weights, two prompts with random tokens behind them, and random scores"


def check(
    subject: Annotated[
        str,
        typer.Argument(
            help="A processor's name, with parameters if you like, a .yaml or .json file with a chain of one "
            "processor, or module:Class or module:factory."
        ),
    ],
    modes: Annotated[
        bool, typer.Option("--modes", help="Check every generation mode as well; needs a processor's name.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the laws on one processor. The exit status is 1 when a law is broken."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # module:Class may lie in the current folder
    if subject.endswith((".yaml", ".yml", ".json")):
        subject = _processor_of_file(subject)
    if ":" not in subject.partition("(")[0]:
        _chain_of(subject).require_packages()
    from logitkit.registry.laws import check_processor

    if modes and (":" in subject or "(" in subject):
        way_out = "write a plugin that offers the class as a processor: logitkit new-plugin"
        raise ParameterError("check", "--modes", "used with a processor's name", subject, way_out)
    report = check_processor(subject)
    cells: list[ModeResult] = []
    if modes:
        from logitkit.registry.laws import check_modes

        cells = check_modes(subject)
    failures = len(report.failures) + sum(bool(cell.fault) for cell in cells)
    if as_json:
        data = _as_data(report, failures) | {"notes": _notes(subject)}
        print_json(data | ({"modes": [vars(cell) for cell in cells]} if modes else {}))
    else:
        _print_report(report, cells)
        for note in _notes(subject):
            print_remark(f"note: {note}")
    raise typer.Exit(1 if failures else 0)


def _print_report(report: Report, cells: Sequence[ModeResult]) -> None:
    """Print what the processor was given, the tables, and an explanation of each failure."""
    print_details(f"{report.subject} is given", [report.given, SURROUNDINGS])
    print_table(_law_table(report))
    for result in report.failures:
        kept = f"the law holds, though its failure is declared: {result.declared}"
        print_details(result.law, result.explain() or [kept])
    if cells:
        print_table(_mode_table(cells))


def _notes(subject: str) -> list[str]:
    """Return a sentence where the Spec of a name still has texts of the template."""
    name = subject.partition("(")[0].strip()
    note = "" if ":" in name else unedited(default_registry().describe(name))
    return [note] if note else []


def _chain_of(subject: str) -> Chain:
    """Return the chain of a processor with parameters; of a name alone, the example of its Spec."""
    return Chain(subject if "(" in subject else default_registry().describe(subject).example or subject)


def _processor_of_file(file: str) -> str:
    """Return the text of the one processor in a chain file.

    Raises:
        ParameterError: the file is missing, or its chain has another length.
    """
    chain = read_chain(file)
    if len(chain) != 1:
        raise ParameterError("check", "SUBJECT", "one processor", str(chain), "check each processor by itself")
    return str(chain)


def _as_data(report: Report, failures: int) -> dict[str, Any]:
    """Return a report as plain data."""
    laws = [vars(result) | {"evidence": result.evidence and result.evidence.as_data()} for result in report.results]
    return {"subject": report.subject, "given": report.given, "failures": failures, "laws": laws}


def _law_table(report: Report) -> FittedTable:
    """Return a table with one line per law."""
    table = FittedTable("law", "kept", "why")
    for result in report.results:
        table.add_row(result.law, _law_mark(result), result.declared or result.reason)
    return table


def _law_mark(result: LawResult) -> Text:
    """Return the outcome of a law in one word.

    "declared" is a violation that the Spec declares, KEPT a declared violation that did not occur, and "-" a law
    that does not apply.
    """
    if result.declared:
        return _red("KEPT") if result.kept else Text("declared")
    if not result.kept:
        return _red("NO")
    return Text("-" if result.reason else "yes")


def _red(text: str) -> Text:
    """Return a text in red."""
    return Text(text, style="red")


def _mode_table(cells: Sequence[ModeResult]) -> FittedTable:
    """Return a table with one line per generation mode."""
    table = FittedTable("generation mode", "correct", "why")
    for cell in cells:
        mark = Text("yes") if cell.right else _red("NO") if cell.fault else Text("refused")
        table.add_row(cell.mode, mark, cell.fault or cell.refused)
    return table
