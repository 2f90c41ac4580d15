"""A finished run on tiny models, for the tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench_runs import tiny_run
from logitkit.bench.config import ChainEntry, CostEntry, Run
from logitkit.bench.execution import Store, carry_out, environment
from logitkit.bench.report import Summary, summarise
from logitkit.bench.speed import cost


@pytest.fixture(scope="session")
def finished(bench_place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Store, Summary]:
    """Return a finished run with a sweep, a strategy whose name contains HTML, and costs."""
    chains = {"plain": ChainEntry()} | {f"cfg {s}": ChainEntry(chain=f"cfg({s})") for s in (1.2, 1.5, 2.0)}
    chains |= {"<b>top</b>": ChainEntry(chain="top_p(0.2)")}
    cascade = {f"cascade {a}": ChainEntry(chain=f"cascade(large='weak', alpha={a})") for a in (0.2, 0.5, 0.8)}
    run = tiny_run(bench_place, chains=chains | cascade, cost=CostEntry(rounds=2, tokens=3), seeds=[0])
    store = Store(tmp_path_factory.mktemp("results"))
    with store:
        store.begin(run, environment())
        carry_out(run, store)
        cost.carry_out(run, store)
    return run, store, summarise(run, store)
