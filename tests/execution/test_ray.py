"""Ray: results of the engine equal those of the local engine, even when workers are killed; replicas of the server.

The tests share one Ray, and most of them run a job that imports no torch, since workers are started again and again.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench_runs import tiny_run
from fresh import ROOT
from logitkit.bench.execution import MEASURED_FIELDS, plan, run_unit
from logitkit.errors import ModeError, ParameterError
from logitkit.execution import ENGINES, ray_engine
from logitkit.execution.ray_engine import distributed
from logitkit.serving import ray_serve
from logitkit.serving.ray_serve import HEADER, RayArguments
from sharded_commands import COMMANDS, prepare, run
from work_elsewhere import RECORDED, one_of, recorded, tripled

pytest.importorskip("ray", reason="ray is not installed: pip install 'logitkit[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Start a Ray instance for two workers."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGITKIT_RAY_WORKERS", "2")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else workers wait for every other process of the machine
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do not set the number of threads, and so import no torch."""
    monkeypatch.setattr(ray_engine, "_threads", lambda: None)


def reproducible(results: dict[Any, Any]) -> list[tuple[str, Any]]:
    """Return results as plain data in order, without the fields of records that a clock measured."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype, value.tolist()
        if isinstance(value, dict):
            return {key: plain(own) for key, own in value.items() if key not in MEASURED_FIELDS}
        return [plain(one) for one in value] if isinstance(value, list) else value

    return sorted((str(unit), plain(result)) for unit, result in results.items())


@pytest.mark.usefixtures("ray")
def test_replicas_answer_as_one_server_does(tiny_checkpoint: str) -> None:
    """Two replicas under Ray Serve: the answers of one server, whole and as a stream, and each replica answers some."""
    serve = pytest.importorskip("ray.serve", reason="ray[serve] is not installed: pip install 'logitkit[ray]'")
    from servers import client_of, running  # needs the extra [serve]

    given = {"model": tiny_checkpoint, "name": "tiny", "replicas": "2"}
    requests = [
        {"prompt": f"The sea {seed}", "seed": seed, "stream": seed == 1, "extra_body": {"chain": chain}}
        for seed, chain in enumerate(["", "cfg(1.5)", "top_k(5) | no_repeat_ngram(2)", "min_p(0.1)"])
    ]

    def answers(address: str) -> tuple[list[str], set[str | None]]:
        texts, names = [], set()
        with client_of(address) as client:
            for request in requests:
                raw = client.completions.with_raw_response.create(model="tiny", max_tokens=8, **request)
                names.add(raw.headers.get(HEADER))
                parts = raw.parse() if request["stream"] else [raw.parse()]
                texts.append("".join(part.choices[0].text for part in parts))
        return texts, names

    with running(RayArguments.model_validate(given).load()) as address:
        want, _ = answers(address)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(ray_serve.app(given), route_prefix="/")
        met: set[str | None] = set()
        for _ in range(100):  # each request goes to either replica
            texts, names = answers(f"http://127.0.0.1:{port}")
            met |= names
            assert texts == want
            if len(met) == 2:
                break
        assert len(met) == 2 and None not in met
    finally:
        serve.shutdown()


@pytest.mark.usefixtures("ray", "without_torch")
def test_killed_workers_change_nothing(tmp_path: Path) -> None:
    """Each unit has its result once, although three workers are killed (signal 9); other processes ran the units."""
    found = list(distributed(functools.partial(tripled, tmp_path), range(8)))
    assert sorted((unit, tripled) for unit, (tripled, _) in found) == [(unit, 3 * unit) for unit in range(8)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4", "6"]
    processes = {process for _, (_, process) in found}
    assert len(processes) >= 2 and os.getpid() not in processes
    deadline = time.monotonic() + 300  # far more than Ray needs
    while any(map(psutil.pid_exists, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, processes))


@pytest.mark.usefixtures("ray", "without_torch")
def test_failing_units_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a unit raises is raised here; a unit whose workers died too often is an error that names the unit.

    A job that the workers cannot import is an error as well.
    """
    job, kept = functools.partial(tripled, tmp_path), []
    with pytest.raises(ParameterError, match="tripled: unit must be another number, got 8"):
        kept += [unit for unit, _ in distributed(job, [8])]
    monkeypatch.setattr(ray_engine, "MAX_TRIES", 2)
    with pytest.raises(ModeError, match="ray: a worker must survive 9, got 2 dead workers"):
        kept += [unit for unit, _ in distributed(job, [9])]
    module = types.ModuleType("only_here")
    exec("def job(unit):\n    return unit\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(ModeError, match=r"ray: workers must have the packages of this process.*'only_here'"):
        kept += [unit for unit, _ in distributed(module.job, [1])]
    assert kept == []


@pytest.mark.usefixtures("ray")
def test_the_units_of_every_command_give_the_same_results(
    bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Benchmark, labels, attributes and membership, to the last bit; the one worker is killed in the middle."""
    monkeypatch.setenv("LOGITKIT_RAY_WORKERS", "1")  # a start of a worker with torch and transformers takes seconds
    monkeypatch.setitem(ENGINES, "recorded", "work_elsewhere:recorded")
    RECORDED.clear()
    for command in COMMANDS[:3]:
        run(command, prepare(tmp_path), tmp_path / command, "recorded")
    place = tiny_run(bench_place)
    list(recorded(functools.partial(run_unit, place), plan(place)[::3]))
    jobs, want = [job for job, _, _ in RECORDED], {}
    for number, (_, units, results) in enumerate(RECORDED):
        want |= {(number, unit): results[at] for at, unit in enumerate(units)}
    units = [(*key, at == len(want) // 2) for at, key in enumerate(want)]
    job = functools.partial(one_of, jobs, tmp_path / "dying")
    found = {unit[:2]: result for unit, result in distributed(job, units)}
    assert (tmp_path / "dying").exists() and len(RECORDED) == 4
    assert reproducible(found) == reproducible(want)


def test_settings_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid setting is reported before Ray starts, and a job without units starts nothing."""
    monkeypatch.setenv("LOGITKIT_RAY_WORKERS", "many")
    with pytest.raises(ParameterError, match="ray: LOGITKIT_RAY_WORKERS must be a number >= 0, got 'many'"):
        list(distributed(len, ["a"]))
    assert list(distributed(len, [])) == []
