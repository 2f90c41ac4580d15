"""Run the units of a run on a Ray cluster, or on several workers of this machine. Needs the extra ``[ray]``.

A worker is a process that keeps its models loaded and takes one unit at a time. The records of a unit depend on the
run and the unit alone, so they equal those of the local engine, whichever worker runs the unit and in any order.
A worker that dies is replaced, and another worker takes its unit. An error that a unit raises is raised here.

    logitkit bench run.yaml --engine ray

Environment: ``RAY_ADDRESS`` joins a running cluster, whose machines need the same logitkit, models and data.
``LOGITKIT_RAY_WORKERS`` is the number of workers; the default is one per GPU, without GPUs one per two processors.
``LOGITKIT_RAY_CPUS`` and ``LOGITKIT_RAY_GPUS`` are the share of a machine that each worker takes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from logitkit.bench.config.run import Run
from logitkit.bench.execution.store import Record
from logitkit.bench.execution.unit import Unit
from logitkit.errors import MissingPackageError, ModeError, ParameterError

MAX_TRIES = 4  # after this many dead workers, the unit is taken as the cause


def distributed(run: Run, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Record]]]:
    """Yield each unit with its records when the unit is complete, in any order.

    Raises:
        ParameterError: a setting in the environment is not a number >= 0.
        ModeError: Ray is not installed, or the workers of a unit died `MAX_TRIES` times.
    """
    if not units:
        return
    import torch

    ray = _import_ray()
    cpus, gpus = _number("LOGITKIT_RAY_CPUS", 1.0), _number("LOGITKIT_RAY_GPUS", None)
    wanted = _number("LOGITKIT_RAY_WORKERS", None)
    if started := not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=False)
    workers: list[Any] = []
    try:
        resources = ray.cluster_resources()
        gpus = gpus if gpus is not None else float(resources.get("GPU", 0) >= 1)
        capacity = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / max(cpus or 1.0, 2.0)
        count = max(1, min(len(units), int(wanted or capacity)))
        start_worker = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker).remote
        stored_run, threads = ray.put(run), torch.get_num_threads()
        workers = [start_worker(stored_run, threads) for _ in range(count)]
        yield from _distribute(ray, units, workers, lambda: start_worker(stored_run, threads))
    finally:
        for worker in workers:
            ray.kill(worker)
        if started:
            ray.shutdown()


class Worker:
    """A process that runs units of one run, one at a time.

    Args:
        run: the run.
        threads: number of threads for arithmetic. It equals that of the process which started the run, so that sums
            are added in the same order.
    """

    def __init__(self, run: Run, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.run = run

    def records(self, unit: Unit) -> list[Record]:
        """Run one unit."""
        from logitkit.bench.execution.unit import run_unit

        return run_unit(self.run, unit)


# Over 40 lines: the loop over results and the two kinds of failure share their state.
def _distribute(
    ray: Any, units: Sequence[Unit], workers: list[Any], start_worker: Any
) -> Iterator[tuple[Unit, list[Record]]]:
    """Keep every worker busy; neighbouring units, which share a model, go to the same worker.

    Args:
        ray: the module.
        units: the units to run.
        workers: the workers; a dead one is replaced in this list.
        start_worker: function that starts a new worker.
    """
    waiting, tries = shards(units, len(workers)), dict.fromkeys(units, 0)
    free = deque(enumerate(workers))
    busy: dict[Any, tuple[int, Any, Unit]] = {}  # pending result -> (number of the worker, worker, unit)
    while free or busy:
        while free:
            number, worker = free.popleft()
            unit = next_unit(waiting, number)
            if unit is None:
                continue
            tries[unit] += 1
            busy[worker.records.remote(unit)] = number, worker, unit
        if not busy:
            return
        (result,), _ = ray.wait(list(busy), num_returns=1)
        number, worker, unit = busy.pop(result)
        try:
            records = ray.get(result)
        except ray.exceptions.RayActorError as death:
            if tries[unit] >= MAX_TRIES:
                raise ModeError(
                    f"bench: a worker must survive {unit}, got {MAX_TRIES} dead workers (out of memory?); the results "
                    f"so far are kept; give workers more memory, or use the local engine: {death}"
                ) from death
            waiting[number].appendleft(unit)
            workers[number] = start_worker()
            free.append((number, workers[number]))
            continue
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        free.append((number, worker))
        yield unit, records


def shards(units: Sequence[Unit], count: int) -> list[deque[Unit]]:
    """Cut the plan into ``count`` sequences of neighbouring units, so that each worker loads few models."""
    size = -(-len(units) // count)
    return [deque(units[start : start + size]) for start in range(0, size * count, size)]


def next_unit(waiting: list[deque[Unit]], number: int) -> Unit | None:
    """Return the next unit of a worker: the first of its own shard, else the last of the longest shard."""
    if waiting[number]:
        return waiting[number].popleft()
    longest = max(waiting, key=len)
    return longest.pop() if longest else None


def _import_ray() -> Any:
    """Return the module ray, which is imported only when this engine is used.

    Raises:
        MissingPackageError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingPackageError("bench --engine ray", "ray", "ray") from error
    return ray


def _number(name: str, default: float | None) -> float | None:
    """Return a number from the environment, or the default if the variable is not set.

    Raises:
        ParameterError: the variable is not a number >= 0.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise ParameterError("bench", name, "a number >= 0", text)
    return value
