"""How long ``logitkit list`` takes with many plugins installed, each time in a fresh process.

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

MODULE = """import logitkit


@logitkit.hookimpl
def logitkit_specs():
    target = "many_plugins_{number}.processor:Nothing"
    return [logitkit.Spec(name="many_{number}", summary="Nothing.", source="nowhere", target=target)]
"""
CLI = "from logitkit.cli import app; app()"
COMMANDS = {
    "python, doing nothing": ["-c", "pass"],
    "import logitkit": ["-c", "import logitkit"],
    "logitkit.names()": ["-c", "import logitkit; logitkit.names()"],
    "logitkit list": ["-c", CLI, "list"],
    "logitkit list --json": ["-c", CLI, "list", "--json"],
}


def install(folder: Path, count: int) -> Path:
    """Write so many plugins, each a distribution as pip would leave it, into a folder for ``PYTHONPATH``."""
    for number in range(count):
        name = f"many_plugins_{number}"
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(MODULE.format(number=number), encoding="utf-8")
        data = folder / f"{name}-1.0.dist-info"
        data.mkdir()
        (data / "METADATA").write_text(f"Metadata-Version: 2.1\nName: many-plugins-{number}\nVersion: 1.0\n")
        (data / "entry_points.txt").write_text(f"[logitkit]\nmany_{number} = {name}\n")
    return folder


def seconds(command: list[str], path: Path, rounds: int) -> float:
    """Median time of a command in a fresh process that sees the plugins; its first run, which compiles, is not counted.

    Args:
        command: what Python is given.
        path: where the plugins are.
        rounds: runs that count.
    """
    took = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, *command], env=os.environ | {"PYTHONPATH": str(path)}, check=True, capture_output=True
        )
        took.append(time.perf_counter() - begun)
    return statistics.median(took[1:])


def table(counts: tuple[int, ...] = (0, 50), rounds: int = 9) -> str:
    """Seconds of each command, as Markdown."""
    lines = [f"| seconds, median of {rounds} | " + " | ".join(f"{count} plugins" for count in counts) + " |"]
    lines.append("|---" * (len(counts) + 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        paths = [install(Path(folder) / str(count), count) for count in counts]
        for name, command in COMMANDS.items():
            lines.append(f"| {name} | " + " | ".join(f"{seconds(command, p, rounds):.3f}" for p in paths) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
