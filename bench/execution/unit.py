"""One unit of work: some samples of one task under one chain of one model. A plain function of plain data.

What it returns depends on its arguments alone: not on what ran before, nor where. So units may be run in any order,
on any machine, again after a crash; an engine needs to know nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run, digest
from logitkit.bench.execution.sampling import continue_prompts, pinned_settings, seed_of
from logitkit.bench.tasks.task import Answer, Sample, Task
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.scoring import score

Record = dict[str, Any]
TIMED = ("seconds",)  # fields of a record that another run of the same unit need not repeat


@dataclass(frozen=True, kw_only=True, order=True)
class Unit:
    """Samples ``start`` to ``stop`` of one task, under one chain of one model, with one seed; names of a `Run`."""

    model: str
    chain: str
    task: str
    seed: int
    start: int
    stop: int


def plan(run: Run) -> list[Unit]:
    """Every unit of a run, those of one model and chain together. Loads tasks, no models."""
    units = []
    for model, chain, name in run.pairs():
        entry, count = run.tasks[name], len(samples(run, name))
        for seed in run.seeds if entry.sampling else run.seeds[:1]:  # greedy answers know no seed
            for start in range(0, count, entry.batch):
                stop = min(start + entry.batch, count)
                units.append(Unit(model=model, chain=chain, task=name, seed=seed, start=start, stop=stop))
    return units


def samples(run: Run, name: str) -> Sequence[Sample]:
    """The samples of a task that a run asks for."""
    return loading.task(run, name).samples[: run.tasks[name].samples]


def keys(run: Run, unit: Unit) -> list[str]:
    """Keys of the records of a unit, repeats of a sample together: 16 hex digits of all that a result depends on."""
    entry, chain = run.tasks[unit.task], Chain(run.chains[unit.chain].chain)
    named = set(loading.texts_within(chain.as_data()))
    told = {  # without defaults, so that a setting that is added one day changes no key
        "model": run.models[unit.model].model_dump(mode="json", exclude_defaults=True),
        "chain": chain.hash,
        "resources": {name: loading.resource_metadata(run, name) for name in run.resources if name in named},
        "task": entry.model_dump(mode="json", exclude_defaults=True, exclude={"samples", "data", "models"}),
        "seed": unit.seed,
        "rows": [unit.start, unit.stop],
        "names": [unit.model, unit.chain, unit.task],
    }
    return [
        digest({**told, "sample": sample.id, "hash": sample.hash, "repeat": repeat})
        for sample in samples(run, unit.task)[unit.start : unit.stop]
        for repeat in range(entry.repeats)
    ]


def run_unit(run: Run, unit: Unit) -> list[Record]:
    """Answer the samples of a unit and judge the answers.

    Returns:
        A record for each sample and repeat, in order: plain data. ``seconds`` is the batch's time shared out among
        its rows; everything else is the same whenever and wherever the unit is run, on like machines.
    """
    entry, task = run.tasks[unit.task], loading.task(run, unit.task)
    chosen = samples(run, unit.task)[unit.start : unit.stop]
    model, tokenizer = loading.model_and_tokenizer(run, unit.model)
    chain = Chain(run.chains[unit.chain].chain)
    resources, tokenizers = loading.chain_resources(run, unit.model, chain)
    bound = {"resources": resources, "tokenizers": tokenizers}
    mode = default_registry().describe_task(entry.task).mode
    with pinned_settings(model):
        answer = _scored if mode == "loglikelihood" else _written
        answers = answer(run, unit, task, chosen, chain, model, tokenizer, bound)
    records = []
    for number, (key, (found, told)) in enumerate(zip(keys(run, unit), answers, strict=True)):
        place, repeat = divmod(number, entry.repeats)
        records.append(
            {
                "key": key,
                "model": unit.model,
                "chain": unit.chain,
                "task": unit.task,
                "seed": unit.seed,
                "sample": chosen[place].id,
                "repeat": repeat,
                "metrics": task.judge(chosen[place], found),
                **told,
            }
        )
    return records


Answered = list[tuple[Answer, dict[str, Any]]]


def _written(
    run: Run, unit: Unit, task: Task, chosen: Sequence[Sample], chain: Chain, model: Any, tokenizer: Any, bound: Any
) -> Answered:
    """Let the chain continue_prompts, all rows together."""
    entry = run.tasks[unit.task]
    asked = [task.request(sample, tokenizer) for sample in chosen for _ in range(entry.repeats)]
    seeds = [seed_of(unit.seed, unit.task, sample.id, repeat) for sample in chosen for repeat in range(entry.repeats)]
    call = chain.bind(
        model, tokenizer, [one.prompt for one in asked], tokenizers=bound["tokenizers"], **bound["resources"]
    )
    begun = time.perf_counter()
    rows = continue_prompts(
        call,
        max_new_tokens=entry.max_new_tokens,
        seeds=seeds if entry.sampling else None,
        stops=[one.stops for one in asked],
        beams=entry.beams,
    )
    seconds = (time.perf_counter() - begun) / len(rows)
    steps = max(1, max(len(ids) for _, ids in rows))
    told = _told(call.trace, steps) | {"seconds": round(seconds, 4)}
    return [
        (
            Answer(
                text=text,
                ids=tuple(ids),
                prompt_ids=tuple(call.prompts.tokens(number)),
                model=model,
                tokenizer=tokenizer,
            ),
            {"text": text, "tokens": len(ids), **told},
        )
        for number, (text, ids) in enumerate(rows)
    ]


def _scored(
    run: Run, unit: Unit, task: Task, chosen: Sequence[Sample], chain: Chain, model: Any, tokenizer: Any, bound: Any
) -> Answered:
    """Score the options of each sample."""
    found: Answered = []
    for sample in chosen:
        asked, begun = task.request(sample, tokenizer), time.perf_counter()
        scored, call = score(chain, model, tokenizer, str(asked.prompt), asked.options, **bound)
        seconds = time.perf_counter() - begun
        steps = max(len(one.logp) for one in scored)
        told = _told(call.trace, steps) | {"seconds": round(seconds, 4)}
        logp = [round(one.total, 6) if one.total > -float("inf") else None for one in scored]
        answer = Answer(options=tuple(scored), model=model, tokenizer=tokenizer)
        found += [(answer, {"options": logp, "tokens": sum(len(one.logp) for one in scored), **told})]
    return found


def _told(trace: Any, steps: int) -> dict[str, Any]:
    """What the trace of a batch says: forwards beside the model's own, fired gates, and means."""
    return {
        "steps": steps,
        "forwards": dict(trace.forwards),
        "interventions": _rounded(trace.interventions),
        "means": _rounded(trace.means),
    }


def _rounded(means: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Means by processor and quantity, rounded to six digits."""
    return {
        processor: {quantity: round(mean, 6) for quantity, mean in each.items()} for processor, each in means.items()
    }
