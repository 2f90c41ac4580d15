"""Chains with a search in the benchmark: seeds, stop texts, and the modes that a run refuses."""

from __future__ import annotations

from pathlib import Path

import torch

from bench_runs import tiny_run, write_checkpoints_and_data
from logitkit.bench.config import ChainEntry, CostEntry
from logitkit.bench.execution import Store, carry_out
from logitkit.bench.execution.sampling import continue_prompts, pinned_settings
from logitkit.bench.execution.unit import SEARCH_COSTS
from logitkit.bench.report import summarise
from logitkit.bench.report.tables import sheets
from logitkit.bench.speed import cost
from logitkit.registry.chain import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["a prompt", "two"]


def rows(
    chain: str, seeds: list[int] | None, prompts: list[str] = PROMPTS, stops: object = ()
) -> list[tuple[str, list[int]]]:
    """The continuations of six tokens under the pinned settings of the benchmark."""
    with pinned_settings(tiny_model()):
        call = Chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts)
        return continue_prompts(call, max_new_tokens=6, seeds=seeds, stops=stops)  # type: ignore[arg-type]


def test_a_row_depends_on_its_seed_alone() -> None:
    """The same seed gives the same row in any batch and after any other work; another seed gives another row."""
    first = rows("smc(3)", [5, 6])
    torch.manual_seed(123)
    assert rows("smc(3)", [6], ["two"]) == first[1:]
    assert rows("smc(3)", [5, 6]) == first != rows("smc(3)", [7, 8])


def test_greedy_tasks_seed_a_search_by_the_row() -> None:
    assert rows("smc(3) | best_of()", None) == rows("smc(3) | best_of()", None)


def test_a_row_ends_before_its_own_stop_text() -> None:
    """The stop texts of a prompt end its rows, wherever the search moves them, and no other rows."""
    free = rows("smc(4, alpha=4.0)", [1, 2])
    stop = next(letter for letter in free[1][0] if letter.isprintable() and letter not in "\ufffd ")
    stopped = rows("smc(4, alpha=4.0)", [1, 2], stops=[(), (stop,)])
    assert len(stopped[0][1]) == 6 and stop not in stopped[1][0]


def test_the_cost_of_a_search_is_in_records_and_in_the_report(tmp_path: Path) -> None:
    """Forwards, tokens, rows and bytes of KV caches; the report has a column, empty without a search."""
    write_checkpoints_and_data(tmp_path)
    base = tiny_run(tmp_path)
    run = base.model_copy(
        update={
            "chains": {"plain": ChainEntry(), "particles": ChainEntry(chain="smc(3)")},
            "tasks": {"text": base.tasks["text"]},
            "resources": {},
            "seeds": [0],
            "cost": CostEntry(rounds=1, tokens=3, batch=1, memory=False),
        }
    )
    with Store(tmp_path / "results") as store:
        carry_out(run, store)
        cost.carry_out(run, store)
    searched = [record for record in store.records.values() if record.get("chain") == "particles"]
    assert searched and all({*record["search"]} == {*SEARCH_COSTS} for record in searched)
    assert not any("search" in record for record in store.records.values() if record.get("chain") == "plain")
    most = max(record["search"]["peak_cache_bytes"] for record in searched)
    sheet = sheets(summarise(run, store))[0]
    place = list(sheet.headings).index("KV cache, MB")
    assert {row[0]: row[place] for row in sheet.rows} == {"plain": "", "particles": f"{most / 1e6:.1f}"}
    prices = cost.costs(run, store, "tiny")
    assert prices["particles"].forwards["model"] >= 1
