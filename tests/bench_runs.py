"""A run on tiny models and a few rows of data, for the tests of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from logitkit.bench.config import ChainEntry, ModelEntry, ResourceEntry, Run, TaskEntry
from logitkit.registry.laws import tiny_model, tiny_tokenizer

WORDS = ["the ship left the harbour", "a horse ran over the hill", "rain fell on the old town", "the bell rang twice"]
CHOICES = [
    {"id": f"q{n}", "question": {"stem": text, "choices": [{"text": w, "label": w} for w in ("yes", "no", "why")]}}
    | {"answerKey": "no"}
    for n, text in enumerate(WORDS)
]


def write_checkpoints_and_data(folder: Path) -> Path:
    """Write two tiny checkpoints and the data files of `tiny_run` into a folder."""
    for seed, name in enumerate(("tiny", "other")):
        tiny_model(seed).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    write_rows(folder / "words.jsonl", [{"text": text} for text in WORDS])
    write_rows(folder / "choices.jsonl", CHOICES)
    (folder / "corpus.txt").write_text("\n\n".join(WORDS * 4))
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tiny_run(place: Path, **changes: Any) -> Run:
    """Return a run of three chains on a cloze task, a choice task, and sampled free text, with some fields replaced."""
    sampled = {"sampling": True, "repeats": 2, "max_new_tokens": 6, "batch": 2}
    parts: dict[str, Any] = {
        "models": {"tiny": ModelEntry(name="tiny")},
        "chains": {
            "plain": ChainEntry(),
            "cfg": ChainEntry(chain="cfg(1.5)"),
            "contrastive": ChainEntry(chain="contrastive(amateur='weak')"),
        },
        "tasks": {
            "lambada": TaskEntry(task="lambada", data="words.jsonl"),
            "arc": TaskEntry(task="arc", data="choices.jsonl"),
            "text": TaskEntry(task="free_text", data="words.jsonl", parameters={"words": 3}, **sampled),
        },
        "resources": {"weak": ResourceEntry(model="other")},
        "seeds": [0, 1],
        "folder": str(place),
    }
    return Run(**{**parts, **changes})


def write_records(run: Run, store: Any, metrics: Any, text: Any = None) -> None:
    """Write a record for every answer of a run without running a model.

    Args:
        run: the run.
        store: an open store.
        metrics: ``metrics(chain, task, number)`` returns the metrics of the answer to a sample.
        text: ``text(chain, number)`` returns the text of the answer; without it, the records have none.
    """
    from logitkit.bench.execution.unit import keys, plan, samples

    for unit in plan(run):
        chosen = samples(run, unit.task)[unit.start : unit.stop]
        for number, (key, sample) in enumerate(zip(keys(run, unit), chosen, strict=True), unit.start):
            names = {"key": key, "model": unit.model, "chain": unit.chain, "task": unit.task, "sample": sample.id}
            counters = {"seed": unit.seed, "repeat": 0, "steps": 2, "forwards": {}, "interventions": {}, "means": {}}
            record = {**names, **counters, "metrics": metrics(unit.chain, unit.task, number)}
            store.add([record | ({"text": text(unit.chain, number)} if text else {})])


def write_costs(run: Run, store: Any, seconds: dict[str, list[float]]) -> None:
    """Write a timed round for each place of the lists of seconds, without running a model."""
    from logitkit.bench.speed import cost

    keys = cost.round_keys(run, "tiny")[run.cost.memory if run.cost else 0 :]
    for place, key in enumerate(keys):
        chains = {
            name: {"seconds": each[place], "tokens": 1, "steps": 1, "forwards": {"model": 1}}
            for name, each in seconds.items()
        }
        store.add([{"key": key, "kind": "cost", "model": "tiny", "what": "time", "chains": chains}])
