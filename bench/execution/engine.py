"""Who runs the units of a run: one after the other in this process, or another engine on other machines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Store
from logitkit.bench.execution.unit import Record, Unit, keys, plan, run_unit
from logitkit.errors import UnknownNameError

# An engine yields each unit with its records as it is done, in any order. To add one, add a line.
Engine = Callable[[Run, Sequence[Unit]], Iterator[tuple[Unit, list[Record]]]]
ENGINES = {"local": "logitkit.bench.execution.engine:local", "ray": "logitkit.bench.execution.ray_engine:distributed"}


def local(run: Run, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Record]]]:
    """Run units one after the other, here."""
    for unit in units:
        yield unit, run_unit(run, unit)


def engine_named(name: str) -> Engine:
    """The engine of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    module, _, function = ENGINES[name].partition(":")
    found: Any = getattr(importlib.import_module(module), function)
    return found  # type: ignore[no-any-return]


def missing(run: Run, store: Store) -> list[Unit]:
    """Units of which a record is missing, in the order of the plan."""
    return [unit for unit in plan(run) if not all(key in store.records for key in keys(run, unit))]


def carry_out(
    run: Run,
    store: Store,
    *,
    engine: Engine = local,
    advance: Callable[[Unit], None] = lambda unit: None,
) -> None:
    """Run what is missing and write it down as it comes; stopped at any point, the same call goes on from there.

    Args:
        store: open for writing.
        advance: called after each unit.
    """
    for unit, records in engine(run, missing(run, store)):
        store.add(records)
        advance(unit)
