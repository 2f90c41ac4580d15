"""Carries out a run: the units without records, on an engine of `logitkit.execution`."""

from __future__ import annotations

import functools
from collections.abc import Callable

from logitkit import execution
from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.execution.unit import Unit, keys, plan, run_unit
from logitkit.execution import Engine, local


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

    def keep(unit: Unit, records: list[Record]) -> None:
        store.add(records)
        advance(unit)

    execution.carry_out(functools.partial(run_unit, run), missing(run, store), keep, engine=engine)
