"""``logitkit bench report``: write the report of a run from its results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from logitkit.cli.inputs import utf8_text
from logitkit.cli.json_output import divert, print_json
from logitkit.cli.rendering import print_line
from logitkit.errors import FileFormatError, ParameterError
from logitkit.files import parse_json, read_bytes, replace_file
from logitkit.packages import require

if TYPE_CHECKING:
    from logitkit.bench.config.run import Run
    from logitkit.bench.execution.store import Store

EXAMPLES = ("logitkit bench report run.yaml",)


def report(
    file: Annotated[Path, typer.Argument(help="The run file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    reading: Annotated[
        Path | None, typer.Option(help="A text file for the top of the report; blank lines separate paragraphs.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The folder with the data of the tasks (else LOGITKIT_DATA).")
    ] = None,
    samples: Annotated[
        bool,
        typer.Option("--samples/--no-samples", help="List every sample with its texts in report.html."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", callback=divert, help="Print JSON and write no files.")] = False,
) -> None:
    """Write report.md and report.html from the results that exist. Nothing is run."""
    require_statistics("bench report")
    from logitkit.bench.report.summary import summarise

    if data is not None and not data.is_dir():
        raise ParameterError("bench report", "--data", "a folder", str(data))
    if reading is not None and not reading.is_file():
        raise ParameterError("bench report", "--reading", "a file that exists", str(reading))
    with data_folder("bench report", data):
        run, store = finished_run("bench report", file, out)
        if as_json:
            print_json(summarise(run, store).as_data())
            return
        text = utf8_text("bench report", "--reading", reading) if reading else ""
        write_report(run, store, text, samples=samples)


def finished_run(command: str, file: Path, out: Path | None) -> tuple[Run, Store]:
    """Return the run of a run file and the store with its results.

    Args:
        command: for error messages.
        file: the run file.
        out: the folder of the results; None: the folder in which ``logitkit bench`` puts them.

    Raises:
        ParameterError: there is no such file, or the folder has no results.
        RunError: the run file has mistakes.
    """
    from logitkit.bench.config import runfile
    from logitkit.bench.execution.store import Store

    if not file.is_file():
        raise ParameterError(command, "FILE", "a run file", str(file))
    out = out or Path("bench-results") / file.stem
    run = runfile.read(file, allow_code_execution=True)  # reading results executes no code
    store = Store(out)
    if not store.records:
        raise ParameterError(command, "--out", "a folder with results", str(out), f"run: logitkit bench {file}")
    return run, store


def require_statistics(command: str) -> None:
    """Check, before anything is loaded, that the packages are installed with which reports are made.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    require(command, "bench", "scipy", "statsmodels")


@contextlib.contextmanager
def data_folder(command: str, data: Path | None) -> Iterator[None]:
    """Name the folder with the data of the tasks while the body runs, as the environment variable LOGITKIT_DATA does.

    Args:
        command: for error messages.
        data: the folder; a file or None leaves the variable as it is.

    Raises:
        ParameterError: there is no such folder or file.
    """
    from logitkit.bench.config.datasource import VARIABLE

    if data is not None and not data.exists():
        raise ParameterError(command, "--data", "a folder or a file that exists", str(data))
    before = os.environ.get(VARIABLE)
    if data is not None and data.is_dir():
        os.environ[VARIABLE] = str(data.absolute())
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def write_report(run: Run, store: Any, reading: str, *, as_json: bool = False, samples: bool = True) -> None:
    """Print the summary of a run, and write it as report.md and report.html into the folder of results.

    Without ``samples`` the page holds no text of the data, so that it can be published where they may not be.
    """
    from logitkit.bench.report.answers import answers
    from logitkit.bench.report.page import page
    from logitkit.bench.report.summary import summarise
    from logitkit.bench.report.tables import markdown, show

    summary = summarise(run, store)
    path = store.manifest(run)
    try:
        manifest = parse_json(read_bytes(path)) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise FileFormatError(f"bench report: {path} must be a manifest, got {error}; remove the file") from error
    if as_json:
        print_json(summary.as_data())
    else:
        show(summary, Console())
    listed = answers(summary, store) if samples else ()
    reports = {
        "report.md": markdown(summary, reading),
        "report.html": page(summary, manifest, store.sessions(run), reading, listed),
    }
    for name, text in reports.items():
        with replace_file(store.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print_line(f"{store.folder / name}", stderr=True)
