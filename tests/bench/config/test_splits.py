"""Development and held-out split: fixed by identifier and seed, and stable when items are added."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_runs import tiny_run, write_rows
from command_line import logitkit_command
from logitkit.bench.config import Overrides, Run, TaskEntry, read
from logitkit.bench.config.runfile import from_data
from logitkit.bench.config.splits import items_of, split_of
from logitkit.bench.execution import keys, plan
from logitkit.bench.execution.unit import samples, tuned_items
from logitkit.bench.tasks.task import Sample
from logitkit.errors import RunError


def test_the_split_by_hand() -> None:
    """The first 64 bits of the hash of seed and identifier, as a share of 1, lie below the share or not."""
    for name, seed in (("0", 0), ("q1", 0), ("q1", 7)):
        place = int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:16], 16) / 2**64
        for share in (0.2, 0.5, 0.9):
            assert split_of(name, seed=seed, share=share) == ("development" if place < share else "held_out")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(), max_size=30, unique=True), st.text(), st.integers(0, 9), st.floats(0.05, 0.95))
def test_the_splits_part_the_items(names: list[str], further: str, seed: int, share: float) -> None:
    """Each item is in one split, in the order of the data; a further item moves no other."""
    items = [Sample(id=name, data={}) for name in names]
    entry = TaskEntry(task="arc", split="development", split_seed=seed, development_share=share)
    parts = [items_of(entry.model_copy(update={"split": split}), items) for split in ("development", "held_out")]
    assert sorted(item.id for part in parts for item in part) == sorted(names)
    assert items_of(entry.model_copy(update={"split": None}), items) == items
    assert all(part == [item for item in items if item in part] for part in parts)
    more = items_of(entry, [*items, Sample(id=further, data={})])
    assert [item for item in more if item in items] == parts[0]


def test_the_share_is_kept_on_average() -> None:
    """Of 4000 items 30 % are for development, within 4 standard errors; another seed gives another split."""
    names = [str(number) for number in range(4000)]
    parts = [{n for n in names if split_of(n, seed=seed, share=0.3) == "development"} for seed in (0, 1)]
    assert all(abs(len(part) / 4000 - 0.3) < 4 * (0.21 / 4000) ** 0.5 for part in parts)
    assert abs(len(parts[0] & parts[1]) / 4000 - 0.09) < 0.02  # independent


def split_run(place: Path, rows: int = 12, **changes: object) -> Run:
    """Return a run of two splits of the same data."""
    write_rows(place / "split.jsonl", [{"text": f"the ship {number}"} for number in range(rows)])
    entry = {"task": "lambada", "data": "split.jsonl", **changes}
    tasks = {name: TaskEntry(**{**entry, "split": name}) for name in ("development", "held_out")}
    return tiny_run(place, tasks=tasks, seeds=[0])


def test_a_run_has_the_items_of_its_split(bench_place: Path) -> None:
    """``samples`` counts within the split, and a record has the same key whatever chose its item."""
    run = split_run(bench_place)
    parts = {name: [sample.id for sample in samples(run, name)] for name in run.tasks}
    assert sorted(parts["development"] + parts["held_out"], key=int) == [str(number) for number in range(12)]
    few = split_run(bench_place, samples=2)
    assert [sample.id for sample in samples(few, "held_out")] == parts["held_out"][:2]
    named = {"words": TaskEntry(task="lambada", data="split.jsonl")}
    whole = tiny_run(bench_place, tasks=named, chains={"plain": run.chains["plain"]})
    part = whole.model_copy(update={"tasks": {"words": named["words"].model_copy(update={"split": "development"})}})
    first = samples(part, "words")[0].id
    if first == samples(whole, "words")[0].id:
        assert keys(part, plan(part)[0]) == keys(whole, plan(whole)[0])


def test_an_empty_or_short_split_is_a_mistake(bench_place: Path) -> None:
    """Before anything is run, with the number of items of the split."""
    task = {"task": "lambada", "data": "words.jsonl", "split": "development"}

    def mistakes(**changes: object) -> str:
        data = {"models": ["tiny"], "chains": [""], "tasks": {"words": {**task, **changes}}}
        with pytest.raises(RunError) as caught:
            from_data(data, folder=str(bench_place))
        return str(caught.value)

    assert "tasks.words.split: split must have an item, got none" in mistakes(development_share=1e-9)
    assert "samples must be at most 1, the number of samples of the development split, got 4" in mistakes(samples=4)
    wrong = mistakes(split="held-out")
    assert "tasks.words.split: split must be one of 'development', 'held_out' or None, got 'held-out'" in wrong


def test_items_that_were_used_for_tuning_are_found(bench_place: Path) -> None:
    """The other split shares no item; the whole data, and the same data cut in another way, share all of it."""
    run = split_run(bench_place)
    tuned = {"run": "0" * 16, "tasks": {"words": run.tasks["development"]}, "settings": {}, "comparisons": 2}
    cut = run.tasks["development"].model_copy(update={"split": None, "parameters": {"letters": 2}})
    other = TaskEntry(task="arc", data="choices.jsonl")
    judged = Run.model_validate(run.model_dump() | {"tuned": tuned, "tasks": {**run.tasks, "cut": cut, "arc": other}})
    used = {name: len(tuned_items(judged, name)) for name in judged.tasks}
    count = len(samples(run, "development"))
    assert used == {"development": count, "held_out": 0, "cut": count, "arc": 0} and 0 < count < 12


def test_an_option_chooses_the_split(bench_place: Path) -> None:
    """``--split`` wins over the file, and over ``defaults``; a misspelt split is a mistake of the command line."""
    data = "models: [tiny]\nchains: ['']\ndefaults: {split: development}\n"
    file = bench_place / "split_run.yaml"
    file.write_text(data + "tasks: {words: {task: lambada, data: words.jsonl, development_share: 0.7}}\n")
    run = read(file, overrides=Overrides(settings={"split": "held_out"}))
    assert run.tasks["words"].split == "held_out" and run.hash != read(file).hash
    result = logitkit_command("bench", file, "--split", "held-out")
    assert result.exit_code == 2 and "split must be one of 'development', 'held_out' or None" in result.stderr
