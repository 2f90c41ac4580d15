"""Engines of tests, named as those of `logitkit.execution` are, and jobs for workers of Ray."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from logitkit.errors import ParameterError

Job = Callable[[Any], Any]
Results = Generator[tuple[Any, Any], None, None]
RECORDED: list[tuple[Job, list[Any], dict[int, Any]]] = []  # job, units and results of `recorded`


def backwards(job: Job, units: Sequence[Any]) -> Results:
    """Run a copy of the job, as a worker of another process has it, from the last unit to the first."""
    copy = pickle.loads(pickle.dumps(job))
    for unit in units[::-1]:
        yield unit, pickle.loads(pickle.dumps(copy(pickle.loads(pickle.dumps(unit)))))


def interrupted(job: Job, units: Sequence[Any]) -> Results:
    """Run the last unit alone, as a run that is interrupted does."""
    yield units[-1], job(units[-1])
    raise KeyboardInterrupt


def recorded(job: Job, units: Sequence[Any]) -> Results:
    """Run the units in this process, and keep job, units and results."""
    results: dict[int, Any] = {}
    RECORDED.append((job, [*units], results))
    for number, unit in enumerate(units):
        results[number] = job(unit)
        yield unit, results[number]


def one_of(jobs: Sequence[Job], dying: Path, unit: tuple[int, Any, bool]) -> Any:
    """Run a unit of one of several jobs. Where the unit says so, the first process that runs it dies."""
    place, own, dies = unit
    if dies:
        die_once(dying)
    return jobs[place](own)


def tripled(folder: Path, unit: int) -> tuple[int, int]:
    """Return three times a number and the process; the first process that meets 1, 4 or 6 dies, and each that meets 9.

    Raises:
        ParameterError: for 8.
    """
    if unit in (1, 4, 6):
        die_once(folder / str(unit))
    if unit == 8:
        raise ParameterError("tripled", "unit", "another number", unit)
    if unit == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return 3 * unit, os.getpid()


def die_once(marker: Path) -> None:
    """Kill this process, unless a process did so before."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
