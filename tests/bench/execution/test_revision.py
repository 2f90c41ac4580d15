"""A fix that changes results raises a Spec's revision; a resumed run then computes these results anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import logitkit
from bench_runs import tiny_run
from logitkit.bench.config import ChainEntry, Run, TaskEntry
from logitkit.bench.execution import Store, carry_out, keys, missing, plan
from logitkit.bench.report import summarise
from logitkit.registry import Plugin, Registry, discover
from logitkit.registry import chain as chain_module


def raised(name: str) -> Registry:
    """Return the registry of the built-in processors, with the revision of one raised."""
    plugins = []
    for plugin in discover(third_party="none").plugins:
        specs = [
            dataclasses.replace(spec, revision=spec.revision + 1) if spec.name == name else spec
            for spec in plugin.specs
        ]
        plugins.append(Plugin(name=plugin.name, origin=plugin.origin, specs=tuple(specs), tasks=plugin.tasks))
    return Registry(plugins)


def two_chain_run(place: Path) -> Run:
    """Return a run of plain decoding and cfg on one task."""
    chains = {"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)")}
    tasks = {"lambada": TaskEntry(task="lambada", data="words.jsonl")}
    return tiny_run(place, chains=chains, tasks=tasks, resources={}, seeds=[0])


def keys_by_chain(run: Run) -> dict[str, set[str]]:
    """Return the keys of all records of each chain."""
    return {name: {key for unit in plan(run) if unit.chain == name for key in keys(run, unit)} for name in run.chains}


def test_a_resumed_run_never_mixes_revisions(
    bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only units of the raised processor are missing; after the run, the store holds their old and new records."""
    run = two_chain_run(bench_place)
    with Store(tmp_path) as store:
        carry_out(run, store)
        assert missing(run, store) == []
    before = keys_by_chain(run)
    registry = raised("cfg")
    monkeypatch.setattr(chain_module, "default_registry", lambda: registry)
    after = keys_by_chain(run)
    with Store(tmp_path) as store:
        assert {unit.chain for unit in missing(run, store)} == {"cfg"}
        carry_out(run, store)
        assert missing(run, store) == []
        assert set(store.records) == before["plain"] | before["cfg"] | after["cfg"]
    assert after["plain"] == before["plain"] and not after["cfg"] & before["cfg"]


def test_records_sessions_and_summaries_state_the_revision(
    bench_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records and sessions hold their revision; a summary reads the records of the current revision."""
    run = two_chain_run(bench_place)
    with Store(tmp_path) as store:
        store.begin(run, {})
        carry_out(run, store)
    registry = raised("cfg")
    monkeypatch.setattr(chain_module, "default_registry", lambda: registry)
    with Store(tmp_path) as store:
        store.begin(run, {})
        carry_out(run, store)
    revisions = [record["revisions"]["cfg"] for record in store.records.values() if record["chain"] == "cfg"]
    old, new = logitkit.describe("cfg").revision, registry.describe("cfg").revision
    assert old < new and revisions == [old] * (len(revisions) // 2) + [new] * (len(revisions) // 2)
    assert [session["processor_revisions"]["cfg"] for session in store.sessions(run)] == [{"cfg": old}, {"cfg": new}]
    assert summarise(run, store).done == len(store.records) - len(revisions) // 2
