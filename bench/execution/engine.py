"""Engines run the units of a run: one after the other in this process, or on other machines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import Unit, keys, plan, run_unit
from logitkit.errors import UnknownNameError

# An engine yields each unit with its records when the unit is complete, in any order.
# To add an engine, add its name and its function here.
Engine = Callable[[Run, Sequence[Unit]], Iterator[tuple[Unit, list[Record]]]]
ENGINES = {"local": "logitkit.bench.execution.engine:local", "ray": "logitkit.bench.execution.ray_engine:distributed"}


def local(run: Run, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Record]]]:
    """Run the units one after the other in this process."""
    for unit in units:
        yield unit, run_unit(run, unit)


def engine_named(name: str) -> Engine:
    """Return the engine of this name.

    Raises:
        UnknownNameError: no engine has this name.

    Examples:
        >>> engine_named("local").__name__
        'local'
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    module, _, function = ENGINES[name].partition(":")
    engine: Any = getattr(importlib.import_module(module), function)
    return engine  # type: ignore[no-any-return]


def missing(run: Run, store: Store) -> list[Unit]:
    """Return the units of which the store lacks a record, in the order of the plan.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> from logitkit.bench.execution import Store
        >>> len(missing(run, Store(folder / 'results')))
        4
    """
    return [unit for unit in plan(run) if not all(key in store.records for key in keys(run, unit))]


def carry_out(
    run: Run,
    store: Store,
    *,
    engine: Engine = local,
    advance: Callable[[Unit], None] = lambda unit: None,
) -> None:
    """Run the missing units and store the records of each unit as soon as it is complete.

    An interrupted run continues where it stopped when this function is called again.

    Args:
        run: the run.
        store: the store, open for writing.
        engine: the engine that runs the units.
        advance: called with each unit after its records are stored.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> with Store(folder / 'results') as store:
        ...     carry_out(run, store)
        >>> len(store.records), missing(run, store)
        (4, [])
    """
    for unit, records in engine(run, missing(run, store)):
        store.add(records)
        advance(unit)
