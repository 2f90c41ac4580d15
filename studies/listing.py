"""Duration of ``logitkit list`` with many plugins installed, each command in a fresh process.

python -m studies.listing
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from studies import command
from studies.tables import markdown_table

MODULE = """import logitkit


@logitkit.hookimpl
def logitkit_specs():
    target = "many_plugins_{number}.processor:Nothing"
    return [logitkit.Spec(name="many_{number}", summary="Nothing.", source="nowhere", target=target)]
"""
CLI = "from logitkit.cli import app; app()"
COMMANDS = {
    "python without a program": ["-c", "pass"],
    "import logitkit": ["-c", "import logitkit"],
    "logitkit.names()": ["-c", "import logitkit; logitkit.names()"],
    "logitkit list": ["-c", CLI, "list"],
    "logitkit list --json": ["-c", CLI, "list", "--json"],
}


def install(folder: Path, count: int) -> Path:
    """Write ``count`` plugins, each a distribution as pip installs it, into a folder for ``PYTHONPATH``."""
    for number in range(count):
        name = f"many_plugins_{number}"
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(MODULE.format(number=number), encoding="utf-8")
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: many-plugins-{number}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[logitkit]\nmany_{number} = {name}\n")
    return folder


def seconds(command: list[str], path: Path, rounds: int) -> float:
    """Return the median duration of a command in a fresh process that sees the plugins.

    Args:
        command: the arguments of Python.
        path: the folder of the plugins.
        rounds: number of timed runs. A first run, which compiles the modules, is not timed.
    """
    durations = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, *command], env=os.environ | {"PYTHONPATH": str(path)}, check=True, capture_output=True
        )
        durations.append(time.perf_counter() - begun)
    return statistics.median(durations[1:])


def table(counts: tuple[int, ...] = (0, 50), rounds: int = 9) -> str:
    """Return the seconds of each command for each number of plugins, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [install(Path(folder) / str(count), count) for count in counts]
        rows = [
            [name, *(f"{seconds(command, path, rounds):.3f}" for path in paths)] for name, command in COMMANDS.items()
        ]
    return markdown_table([f"seconds, median of {rounds}", *(f"{count} plugins" for count in counts)], rows)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed runs of each command.")] = 9,
    plugins: Annotated[int, typer.Option(min=1, help="Number of plugins in the last column.")] = 50,
) -> None:
    """Print how long listing takes without and with many plugins, as a Markdown table."""
    typer.echo(table((0, plugins), rounds))


if __name__ == "__main__":
    command.run(main)
