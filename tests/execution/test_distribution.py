"""The distribution of units to workers, with a stand-in for Ray whose workers die at random."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logitkit.errors import ModeError
from logitkit.execution.ray_engine import MAX_TRIES, _distribute, next_unit, shards


class ActorError(Exception):
    """Stands for the error of a dead worker."""


class TaskError(Exception):
    """Stands for the error of a unit."""


class Cluster:
    """A Ray of one process.

    Args:
        deaths: how often the workers of each unit die.
        seed: of the order in which units are complete.
    """

    def __init__(self, deaths: Counter[int], seed: int) -> None:
        self.left, self.random = deaths, random.Random(seed)
        self.exceptions = SimpleNamespace(RayActorError=ActorError, RayTaskError=TaskError)
        self.started, self.busy = 0, Counter[int]()

    def worker(self) -> Any:
        """Start a worker, which takes one unit at a time and none after its death."""
        name, self.started = self.started, self.started + 1

        def remote(unit: int) -> tuple[int, int]:
            assert not self.busy[name], "a worker has two units, or is dead"
            self.busy[name] += 1
            return name, unit

        return SimpleNamespace(result=SimpleNamespace(remote=remote))

    def wait(self, pending: list[tuple[int, int]], num_returns: int) -> tuple[list[tuple[int, int]], list[Any]]:
        """Return any of the pending results."""
        return [self.random.choice(pending)], []

    def get(self, result: tuple[int, int]) -> int:
        """Return three times the unit, unless its worker dies."""
        worker, unit = result
        if self.left[unit]:
            self.left[unit] -= 1
            raise ActorError
        self.busy[worker] -= 1
        return 3 * unit


@given(
    st.integers(1, 12), st.integers(1, 5), st.dictionaries(st.integers(0, 11), st.integers(1, MAX_TRIES)), st.integers()
)
def test_each_unit_has_its_result_once(units: int, workers: int, deaths: dict[int, int], seed: int) -> None:
    """Whatever dies in whatever order; with too many deaths of one unit, the error names it after other results."""
    cluster = Cluster(Counter({100 + unit: count for unit, count in deaths.items()}), seed)  # units: not their numbers
    found: list[tuple[int, int]] = []
    doomed = [unit for unit in range(units) if deaths.get(unit, 0) >= MAX_TRIES]
    running = [cluster.worker() for _ in range(workers)]
    try:
        for number, result in _distribute(cluster, range(100, 100 + units), running, cluster.worker):
            found.append((number, result))
    except ModeError as error:
        assert any(f"survive {100 + unit}, got {MAX_TRIES} dead workers" in str(error) for unit in doomed)
    else:
        assert doomed == [] and len(found) == units
        assert cluster.started == workers + sum(count for unit, count in deaths.items() if unit < units)
    assert len(set(found)) == len(found) and all(result == 3 * (100 + number) for number, result in found)
    assert len(running) == workers


@given(st.integers(0, 20), st.integers(1, 6), st.data())
def test_shards_are_neighbours_and_nothing_is_lost(units: int, workers: int, data: st.DataObject) -> None:
    """The shards joined are the plan; taken in any order by any workers, each unit is taken once."""
    waiting = shards(units, workers)
    assert len(waiting) == workers and [unit for shard in waiting for unit in shard] == list(range(units))
    taken = [next_unit(waiting, data.draw(st.integers(0, workers - 1))) for _ in range(units)]
    assert sorted(unit for unit in taken if unit is not None) == list(range(units)) and next_unit(waiting, 0) is None


def test_an_idle_worker_helps_the_busiest() -> None:
    """Ten units for three workers are cut into 4, 4 and 2; an idle worker takes the last unit of the longest shard."""
    waiting = shards(10, 3)
    assert [list(shard) for shard in waiting] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [next_unit(waiting, 2) for _ in range(4)] == [8, 9, 3, 7] and sum(map(len, waiting)) == 6


def test_the_error_of_a_unit_is_its_own() -> None:
    """And no further unit is given out."""
    cluster = Cluster(Counter(), 0)
    failed = TaskError()
    failed.cause = ValueError("of the unit")  # type: ignore[attr-defined]
    cluster.exceptions.RayError = ActorError

    def fail(result: Any) -> Any:
        raise failed

    cluster.get = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="of the unit"):
        list(_distribute(cluster, range(4), [cluster.worker()], cluster.worker))
    assert sum(cluster.busy.values()) == 1
