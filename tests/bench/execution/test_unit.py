"""Units of work: records depend on the run and the unit alone, whatever ran before."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from bench_runs import tiny_run
from logitkit import models
from logitkit.bench.config import ChainEntry, ResourceEntry, Run, loading
from logitkit.bench.execution import MEASURED_FIELDS, Unit, keys, plan, run_unit
from logitkit.bench.execution.store import Record


def reproducible(records: list[Record]) -> list[Record]:
    """Return the records without the fields that a clock measured."""
    return [{name: value for name, value in record.items() if name not in MEASURED_FIELDS} for record in records]


def records_of(run: Run, units: list[Unit]) -> dict[str, Record]:
    """Run the units and return their records by key."""
    return {record["key"]: record for unit in units for record in reproducible(run_unit(run, unit))}


def test_a_plan_by_hand(bench_place: Path) -> None:
    """The plan has 3 chains x (4 words + 4 questions + 2 batches of passages x 2 seeds) units."""
    run = tiny_run(bench_place)
    units = plan(run)
    assert len(units) == 3 * (4 + 4 + 2 * 2)
    text = [unit for unit in units if unit.task == "text" and unit.chain == "cfg"]
    assert [(unit.seed, unit.start, unit.stop) for unit in text] == [
        (0, 0, 2), (0, 2, 4), (1, 0, 2), (1, 2, 4)
    ]  # fmt: skip
    every = [key for unit in units for key in keys(run, unit)]
    assert len(set(every)) == len(every) == 3 * (4 + 4 + 2 * 2 * 4)


def test_the_order_of_units_does_not_matter(bench_place: Path) -> None:
    """Units that run forwards or backwards, with empty caches, have bit-identical records."""
    run = tiny_run(bench_place)
    units = plan(run)
    forwards = records_of(run, units)
    loading.clear_caches()
    assert records_of(run, units[::-1]) == forwards
    assert all(json.loads(json.dumps(record)) == record for record in forwards.values())


def test_samples_do_not_depend_on_the_batch(bench_place: Path) -> None:
    """Sampled texts are the same in batches of 1 and of 3, repeats included."""

    def texts(batch: int) -> dict[tuple[Any, ...], str]:
        run = tiny_run(bench_place)
        tasks = {"text": run.tasks["text"].model_copy(update={"batch": batch})}
        run = run.model_copy(update={"tasks": tasks})
        found = records_of(run, plan(run)).values()
        return {(r["chain"], r["seed"], r["sample"], r["repeat"]): r["text"] for r in found}

    assert texts(1) == texts(3)
    assert len(set(texts(1).values())) > 20


def test_runs_and_units_are_picklable(bench_place: Path) -> None:
    """A run that is pickled and read back has the same hash, and its units the same keys."""
    run = tiny_run(bench_place)
    unit = plan(run)[0]
    there, then = pickle.loads(pickle.dumps((run, unit)))
    assert there.hash == run.hash and keys(there, then) == keys(run, unit)
    assert Run.model_validate(run.model_dump(mode="json")).hash == run.hash


def test_a_key_depends_on_everything_that_a_result_depends_on(bench_place: Path) -> None:
    """Chain, model, resource, seed, task settings and data change a key; the number of samples does not."""
    run = tiny_run(bench_place)
    unit = Unit(model="tiny", chain="contrastive", task="text", seed=0, start=0, stop=2)
    known = keys(run, unit)
    assert keys(tiny_run(bench_place, seeds=[5, 0]), unit) == known
    entry = run.tasks["text"]
    assert keys(tiny_run(bench_place, tasks={"text": entry.model_copy(update={"samples": 4})}), unit) == known
    others = [
        tiny_run(bench_place, chains={"contrastive": ChainEntry(chain="contrastive(amateur='weak', beta=0.7)")}),
        tiny_run(bench_place, models={"tiny": run.models["tiny"].model_copy(update={"name": "other"})}),
        tiny_run(bench_place, resources={"weak": run.resources["weak"].model_copy(update={"model": "tiny"})}),
        tiny_run(bench_place, tasks={"text": entry.model_copy(update={"max_new_tokens": 7})}),
        tiny_run(bench_place, tasks={"text": entry.model_copy(update={"parameters": {"words": 4}})}),
    ]
    assert all(not set(keys(other, unit)) & set(known) for other in others)


def test_a_key_depends_on_the_content_of_a_corpus(bench_place: Path) -> None:
    """Another text under the same name changes the key, and the table is counted again."""
    chains = {"style": ChainEntry(chain="ngram_style('book', 0.3)")}
    run = tiny_run(bench_place, chains=chains, resources={"book": ResourceEntry(corpus="book.txt")})
    unit, book = Unit(model="tiny", chain="style", task="text", seed=0, start=0, stop=2), bench_place / "book.txt"
    book.write_text("one text of a few words")
    known, before = keys(run, unit), run_unit(run, unit)
    book.write_text("quite another one, and a longer one")
    assert not set(keys(run, unit)) & set(known)
    assert [record["text"] for record in run_unit(run, unit)] != [record["text"] for record in before]


def test_a_model_that_a_chain_names_is_loaded_once(bench_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that a chain names by its folder is loaded once per process, not at every call."""
    folder = str(bench_place / "other")
    run = tiny_run(bench_place, chains={"c": ChainEntry(chain=f"contrastive(amateur={folder!r})")}, resources={})
    loading.clear_caches()
    load = models.load
    loaded: list[str] = []

    def counted(name: str, **settings: Any) -> Any:
        loaded.append(name)
        return load(name, **settings)

    monkeypatch.setattr(models, "load", counted)
    for unit in plan(run)[:3]:
        run_unit(run, unit)
    assert sorted(loaded) == sorted({str(bench_place / "tiny"), folder})
