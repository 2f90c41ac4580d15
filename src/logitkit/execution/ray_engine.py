"""Run the units of a job on a Ray cluster, or on several workers of this machine. Needs the extra ``[ray]``.

A worker is a process that keeps what its job has loaded and takes one unit at a time. The result of a unit depends on
the unit alone, so results equal those of the local engine, whichever worker runs the unit and in any order.
A worker that dies is replaced, and another worker takes its unit. An error that a unit raises is raised here.

    logitkit bench run.yaml --engine ray

Environment: ``RAY_ADDRESS`` joins a running cluster, whose machines need the same logitkit, models and data.
``LOGITKIT_RAY_WORKERS`` is the number of workers; the default is one per GPU, without GPUs one per two processors.
``LOGITKIT_RAY_CPUS`` and ``LOGITKIT_RAY_GPUS`` are the share of a machine that each worker takes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from logitkit.errors import MissingPackageError, ModeError, ParameterError

Unit = TypeVar("Unit")
Result = TypeVar("Result")
MAX_TRIES = 4  # after this many dead workers, the unit is taken as the cause


def distributed(job: Callable[[Unit], Result], units: Sequence[Unit], /) -> Generator[tuple[Unit, Result], None, None]:
    """Yield each unit with its result when the unit is complete, in any order; see `logitkit.execution.Engine`.

    Neighbouring units go to the same worker, so units that share a model should be next to each other.

    Raises:
        ParameterError: a setting in the environment is not a number >= 0.
        MissingPackageError: Ray is not installed.
        ModeError: the workers of a unit died `MAX_TRIES` times, or cannot import what the job needs.
    """
    if not units:
        return
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
        start = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker).remote
        stored, threads = [ray.put(job)], _threads()  # in a list, it is read by the first unit and not by the start
        workers = [start(stored, threads) for _ in range(count)]
        for number, result in _distribute(ray, units, workers, lambda: start(stored, threads)):
            yield units[number], result
    finally:
        for worker in workers:
            ray.kill(worker)
        if started:
            ray.shutdown()


class Worker:
    """A process that runs units of one job, one at a time.

    Args:
        stored: a list of the reference to the job.
        threads: number of threads for arithmetic. It equals that of the process which started the job, so that sums
            are added in the same order. None leaves the number as it is.
    """

    def __init__(self, stored: list[Any], threads: int | None) -> None:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self._stored = stored
        self._job: Callable[[Any], Any] | None = None

    def result(self, unit: Any) -> Any:
        """Run one unit."""
        job = self._job = self._job or _import_ray().get(self._stored)[0]
        return job(unit)


def _threads() -> int | None:
    """Return the number of threads that torch uses for arithmetic in this process."""
    import torch

    return torch.get_num_threads()


# Over 40 lines: the loop over results and the two kinds of failure share their state.
def _distribute(
    ray: Any, units: Sequence[Any], workers: list[Any], start_worker: Callable[[], Any]
) -> Generator[tuple[int, Any], None, None]:
    """Keep every worker busy, and yield the number of each complete unit with its result.

    Args:
        ray: the module.
        units: the units to run.
        workers: the workers; a dead one is replaced in this list.
        start_worker: function that starts a new worker.
    """
    waiting, tries = shards(len(units), len(workers)), [0] * len(units)
    free = deque(enumerate(workers))
    busy: dict[Any, tuple[int, Any, int]] = {}  # pending result -> (place of the worker, worker, number of the unit)
    while free or busy:
        while free:
            place, worker = free.popleft()
            number = next_unit(waiting, place)
            if number is None:
                continue
            tries[number] += 1
            busy[worker.result.remote(units[number])] = place, worker, number
        if not busy:
            return
        (pending,), _ = ray.wait(list(busy), num_returns=1)
        place, worker, number = busy.pop(pending)
        try:
            result = ray.get(pending)
        except ray.exceptions.RayActorError as death:
            if tries[number] >= MAX_TRIES:
                raise ModeError(
                    f"ray: a worker must survive {units[number]!r:.200}, got {MAX_TRIES} dead workers (out of "
                    f"memory?); the results so far are kept; give workers more memory, or use the local engine: {death}"
                ) from death
            waiting[place].appendleft(number)
            workers[place] = start_worker()
            free.append((place, workers[place]))
            continue
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ray.exceptions.RayError):
                reason = str(error.cause).partition("\n")[0]
                raise ModeError(f"ray: workers must have the packages of this process, got {reason!r}") from error
            raise error.cause from error
        free.append((place, worker))
        yield number, result


def shards(units: int, workers: int) -> list[deque[int]]:
    """Cut the numbers of units into one sequence of neighbours for each worker, so that each worker loads few models.

    Example:
        >>> [list(shard) for shard in shards(10, 3)]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """
    size = -(-units // workers)
    return [deque(range(units)[place * size : (place + 1) * size]) for place in range(workers)]


def next_unit(waiting: list[deque[int]], place: int) -> int | None:
    """Return the next unit of a worker: the first of its own shard, else the last of the longest shard.

    Example:
        >>> waiting = shards(3, 2)
        >>> [next_unit(waiting, 1) for _ in range(4)]
        [2, 1, 0, None]
    """
    if waiting[place]:
        return waiting[place].popleft()
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
        raise MissingPackageError("engine ray", "ray", "ray") from error
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
        raise ParameterError("ray", name, "a number >= 0", text)
    return value
