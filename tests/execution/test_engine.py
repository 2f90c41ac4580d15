"""Engines in one process, and what each process loads for itself."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import pytest

from logitkit.errors import UnknownNameError
from logitkit.execution import PerProcess, carry_out, engine_named, local, value_of

LOADED: list[str] = []


def load(name: str) -> str:
    """Note that a name is loaded, and return it."""
    LOADED.append(name)
    return name


def test_a_value_is_loaded_once_a_process() -> None:
    """It is not loaded before it is needed, and a copy that was pickled loads its own."""
    LOADED.clear()
    shared = PerProcess(functools.partial(load, "model"))
    assert LOADED == [] and shared.value is value_of(shared) and LOADED == ["model"]
    copy = pickle.loads(pickle.dumps(shared))
    assert LOADED == ["model"] and copy.value == "model" and LOADED == ["model", "model"]
    assert PerProcess(lambda: None).value is None and value_of("plain") == "plain"


def test_results_are_kept_one_by_one_and_engines_end() -> None:
    """What was complete before an error is kept, and the engine has ended when the error is raised."""
    kept: list[tuple[str, int]] = []
    ended: list[bool] = []

    def engine(job: Any, units: Any) -> Any:
        try:
            yield from local(job, units)
        finally:
            ended.append(True)

    def keep(unit: str, result: int) -> None:
        if unit == "third":
            raise KeyboardInterrupt
        kept.append((unit, result))

    with pytest.raises(KeyboardInterrupt):
        carry_out(len, ["one", "second", "third", "four"], keep, engine=engine)
    assert kept == [("one", 3), ("second", 6)] and ended == [True]


def test_an_unknown_engine_is_refused() -> None:
    """The error suggests the closest name of an engine."""
    with pytest.raises(UnknownNameError, match="did you mean 'local'"):
        engine_named("locl")
