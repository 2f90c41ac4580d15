"""The Ray engine: its records equal those of the local engine, even when workers are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench_runs import tiny_run
from logitkit.bench.config import ChainEntry
from logitkit.bench.execution import MEASURED_FIELDS, Store, carry_out, engine_named, plan, ray_engine
from logitkit.bench.execution.ray_engine import MAX_TRIES, distributed
from logitkit.bench.execution.store import Record
from logitkit.errors import LogitkitError, ModeError, ParameterError

pytest.importorskip("ray", reason="ray is not installed: pip install 'logitkit[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")


def reproducible(store: Store) -> dict[str, Record]:
    """Return the records without the fields that a clock measured."""
    return {k: {n: v for n, v in record.items() if n not in MEASURED_FIELDS} for k, record in store.records.items()}


def workers() -> list[int]:
    """Return the process ids of the running workers."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process.pid)
        except psutil.Error:
            pass
    return found


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start a Ray instance with two workers."""
    import ray

    monkeypatch.setenv("LOGITKIT_RAY_WORKERS", "2")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_killed_workers_change_nothing(two: None, bench_place: Path, tmp_path: Path) -> None:
    """A run whose workers are killed three times (signal 9) has the records of the local run."""
    run = tiny_run(bench_place)
    with Store(tmp_path / "local") as local:
        carry_out(run, local)
    dead: list[int] = []
    begun, killed, over = threading.Event(), threading.Event(), threading.Event()

    def kill() -> None:
        begun.wait(120)
        while len(dead) < 3 and not over.is_set():
            if alive := [pid for pid in workers() if pid not in dead]:
                os.kill(alive[0], signal.SIGKILL)
                dead.append(alive[0])
                killed.set()
            time.sleep(0.1)

    killer = threading.Thread(target=kill)
    killer.start()
    units = []
    try:
        with Store(tmp_path / "ray") as store:

            def advance(unit: Any) -> None:
                begun.set()
                units.append(unit)
                killed.wait(120)
                time.sleep(0.02)  # leaves time to kill further workers

            carry_out(run, store, engine=engine_named("ray"), advance=advance)
    finally:
        over.set()
        begun.set()
        killer.join()
    assert dead and sorted(units) == sorted(plan(run))
    assert reproducible(store) == reproducible(local)


def test_what_a_unit_raises_is_raised(two: None, bench_place: Path) -> None:
    """An error of a unit is raised as our own error, not as Ray's, and no worker keeps running."""
    run = tiny_run(bench_place, chains={"cad": ChainEntry(chain="cad(context='nowhere in the prompt')")})
    with pytest.raises(LogitkitError, match="cad: context must be a piece of its prompt"):
        list(distributed(run, plan(run)))
    deadline = time.monotonic() + 300  # far more than Ray needs
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers() == []


def test_a_unit_that_kills_its_workers_is_an_error(
    two: None, bench_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit whose worker died four times is an error that names the unit."""

    class Doomed(ray_engine.Worker):
        def __init__(self, run: Any, threads: int) -> None:
            self.run = run

        def records(self, unit: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ray_engine, "Worker", Doomed)
    run = tiny_run(bench_place)
    with pytest.raises(ModeError, match=f"Unit.*got {MAX_TRIES} dead workers"):
        list(distributed(run, plan(run)[:1]))


def test_shards_are_neighbours_and_nothing_is_lost(bench_place: Path) -> None:
    """Ten units for three workers are cut into 4, 4 and 2; an idle worker takes the last unit of the longest shard."""
    units = plan(tiny_run(bench_place))[:10]
    shards = ray_engine.shards(units, 3)
    assert [list(shard) for shard in shards] == [units[:4], units[4:8], units[8:]]
    taken = [ray_engine.next_unit(shards, 2) for _ in range(4)]
    assert taken == [units[8], units[9], units[3], units[7]]
    assert sum(map(len, shards)) == 6


def test_settings_are_numbers(bench_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid setting is reported before Ray starts, and a run without units starts nothing."""
    monkeypatch.setenv("LOGITKIT_RAY_WORKERS", "many")
    run = tiny_run(bench_place)
    with pytest.raises(ParameterError, match="bench: LOGITKIT_RAY_WORKERS must be a number >= 0, got 'many'"):
        list(distributed(run, plan(run)))
    assert list(distributed(run, [])) == []
