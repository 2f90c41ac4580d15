"""Engines run the units of a job: one after the other in this process, or in the processes of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from logitkit.errors import UnknownNameError
from logitkit.packages import require

Unit = TypeVar("Unit")
Result = TypeVar("Result")
# To add an engine, add its name and its function here.
ENGINES = {"local": "logitkit.execution.engine:local", "ray": "logitkit.execution.ray_engine:distributed"}


class Engine(Protocol):
    """Runs a job on units.

    Example:
        >>> def backwards(job, units):
        ...     yield from local(job, units[::-1])
        >>> dict(backwards(len, ["a", "bcd"]))
        {'bcd': 3, 'a': 1}
    """

    def __call__(
        self, job: Callable[[Unit], Result], units: Sequence[Unit], /
    ) -> Generator[tuple[Unit, Result], None, None]:
        """Yield each unit with its result as soon as the unit is complete, in any order.

        Args:
            job: runs one unit. Job, units and results can be pickled.
            units: the units.
        """
        ...


def local(job: Callable[[Unit], Result], units: Sequence[Unit], /) -> Generator[tuple[Unit, Result], None, None]:
    """Run the units one after the other in this process; see `Engine`.

    Example:
        >>> list(local(len, ["a", "bcd"]))
        [('a', 1), ('bcd', 3)]
    """
    for unit in units:
        yield unit, job(unit)


def engine_named(name: str, owner: str = "engine") -> Engine:
    """Return the engine of this name.

    Args:
        name: one of `ENGINES`.
        owner: the command that needs it, for the error message.

    Raises:
        UnknownNameError: no engine has this name.
        MissingPackageError: the engine needs a package that is not installed.

    Example:
        >>> engine_named("local").__name__
        'local'
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    if name == "ray":
        require(f"{owner} --engine ray", "ray", "ray")
    module, _, function = ENGINES[name].partition(":")
    engine: Any = getattr(importlib.import_module(module), function)
    return engine  # type: ignore[no-any-return]


def carry_out(
    job: Callable[[Unit], Result],
    units: Sequence[Unit],
    keep: Callable[[Unit, Result], None],
    *,
    engine: Engine = local,
) -> None:
    """Run a job on units, and hand each result to its store as soon as the unit is complete.

    Work is resumable when ``units`` are those whose results the store lacks. When this function raises, the workers of
    the engine have ended.

    Args:
        job: runs one unit; see `Engine`.
        units: the units.
        keep: stores the result of a unit. It is called in this process, with one unit at a time, in any order.
        engine: runs the job.

    Example:
        >>> stored = {"a": 1}
        >>> carry_out(len, [text for text in ["a", "bcd"] if text not in stored], stored.__setitem__)
        >>> stored
        {'a': 1, 'bcd': 3}
    """
    with contextlib.closing(engine(job, units)) as results:
        for unit, result in results:
            keep(unit, result)
