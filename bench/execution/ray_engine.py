"""The units of a run on a Ray cluster, or on several workers of this machine; the extra ``[ray]``.

A worker is a process that keeps its models, takes one unit at a time, and asks for nothing else: a unit's records
depend on the run and the unit alone, so they are those of the local engine, whoever runs it and in whatever order.
A worker that dies is replaced and its unit is given to another; what a unit itself raises is raised here.

    logitkit bench run.yaml --engine ray

Environment: ``RAY_ADDRESS`` joins a cluster that is running (its machines need the same logitkit, models and data);
``LOGITKIT_RAY_WORKERS`` is how many workers, by default one a GPU, else one for each two processors;
``LOGITKIT_RAY_CPUS`` and ``LOGITKIT_RAY_GPUS`` are what each takes of a machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from logitkit.bench.config.run import Run
from logitkit.bench.execution.unit import Record, Unit
from logitkit.errors import ModeError, ParameterError

TRIES = 4  # of one unit, before it is believed to be what kills its workers


def distributed(run: Run, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Record]]]:
    """Yield each unit with its records as it is done, in any order.

    Raises:
        ParameterError: a setting in the environment that is no number.
        ModeError: Ray is not installed, or a unit's workers die again and again.
    """
    if not units:
        return
    import torch

    ray = _ray()
    share = _number("LOGITKIT_RAY_CPUS", 1.0), _number("LOGITKIT_RAY_GPUS", None)
    wanted = _number("LOGITKIT_RAY_WORKERS", None)
    if joined := not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=False)
    crew: dict[Any, Any] = {}  # what is being computed -> (worker, unit)
    workers: list[Any] = []
    try:
        resources = ray.cluster_resources()
        gpus = share[1] if share[1] is not None else float(resources.get("GPU", 0) >= 1)
        room = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / max(share[0] or 1.0, 2.0)
        count = max(1, min(len(units), int(wanted or room)))
        hire = ray.remote(num_cpus=share[0], num_gpus=gpus, max_restarts=0)(Worker).remote
        told, threads = ray.put(run), torch.get_num_threads()
        workers = [hire(told, threads) for _ in range(count)]
        yield from _shared_out(ray, units, workers, crew, lambda: hire(told, threads))
    finally:
        for worker in workers:
            ray.kill(worker)
        if joined:
            ray.shutdown()


class Worker:
    """A process that runs units of one run, one at a time.

    Args:
        threads: of its arithmetic, as many as where the run was started: sums are then added in the same order.
    """

    def __init__(self, run: Run, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.run = run

    def records(self, unit: Unit) -> list[Record]:
        """Run one unit."""
        from logitkit.bench.execution.unit import run_unit

        return run_unit(self.run, unit)


def _shared_out(
    ray: Any, units: Sequence[Unit], workers: list[Any], crew: dict[Any, Any], hire: Any
) -> Iterator[tuple[Unit, list[Record]]]:
    """Keep every worker busy; units of one model and chain stay with a worker as long as there are others."""
    waiting, tries = _shards(units, len(workers)), dict.fromkeys(units, 0)
    free = deque(enumerate(workers))
    while free or crew:
        while free:
            place, worker = free.popleft()
            unit = _next(waiting, place)
            if unit is None:
                continue
            tries[unit] += 1
            crew[worker.records.remote(unit)] = place, worker, unit
        if not crew:
            return
        (done,), _ = ray.wait(list(crew), num_returns=1)
        place, worker, unit = crew.pop(done)
        try:
            records = ray.get(done)
        except ray.exceptions.RayActorError as death:
            if tries[unit] >= TRIES:
                raise ModeError(
                    f"bench: a worker must live through {unit}, got {TRIES} dead ones (of memory?); what is done is "
                    f"kept; give workers more room, or run it with the local engine: {death}"
                ) from death
            waiting[place].appendleft(unit)
            workers[place] = hire()
            free.append((place, workers[place]))
            continue
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        free.append((place, worker))
        yield unit, records


def _shards(units: Sequence[Unit], count: int) -> list[deque[Unit]]:
    """Cut the plan into as many runs of neighbours as there are workers: each loads few models."""
    size = -(-len(units) // count)
    return [deque(units[start : start + size]) for start in range(0, size * count, size)]


def _next(waiting: list[deque[Unit]], place: int) -> Unit | None:
    """The next unit of a worker: of its own shard, else from the end of the longest."""
    if waiting[place]:
        return waiting[place].popleft()
    longest = max(waiting, key=len)
    return longest.pop() if longest else None


def _ray() -> Any:
    """Ray, imported only when it is asked for."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModeError("bench: --engine ray needs Ray; pip install 'logitkit[ray]'") from error
    return ray


def _number(name: str, default: float | None) -> float | None:
    """A positive number from the environment."""
    said = os.environ.get(name)
    if said is None:
        return default
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise ParameterError("bench", name, "a number >= 0", said)
    return value
