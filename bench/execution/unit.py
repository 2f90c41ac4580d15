"""A unit of work: some samples of one task under one chain of one model.

The records of a unit depend on the run and the unit alone. They do not depend on the machine or on what ran before,
so units may run in any order, on any machine, and again after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run, TaskEntry, digest
from logitkit.bench.execution.sampling import continue_prompts, pinned_settings, seed_of
from logitkit.bench.execution.scored_batches import WINDOW, Subject, score_requests
from logitkit.bench.execution.store import Record
from logitkit.bench.tasks.task import Answer, Sample, Task
from logitkit.processors.engine.search_report import SearchReport
from logitkit.processors.engine.trace import Trace
from logitkit.registry.bind import bind
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry

# Costs of a search that are the same in two executions.
SEARCH_COSTS = ("forwards", "tokens", "peak_rows", "peak_cache_bytes")
# Fields of a record that differ between two executions of the same unit.
MEASURED_FIELDS = ("seconds", "peak_device_bytes")
# Settings of a task that say which items are used, and change no answer to an item.
NOT_IN_KEYS = {"samples", "data", "models", "split", "split_seed", "development_share"}


@dataclass(frozen=True, kw_only=True, order=True)
class Unit:
    """Samples ``start`` to ``stop`` (exclusive) of one task, under one chain of one model, with one seed.

    A unit is one batch; of a task that scores texts, it is eight batches, whose samples are sorted by length together.

    Attributes:
        model, chain, task: names of entries of the `Run`.
        seed: seed of the sampling.
        start, stop: range of samples.

    Examples:
        >>> Unit(model="small", chain="plain", task="arc", seed=0, start=0, stop=8).stop
        8
    """

    model: str
    chain: str
    task: str
    seed: int
    start: int
    stop: int


def plan(run: Run) -> list[Unit]:
    """Return every unit of a run, grouped by model and chain. Loads the tasks, but no models.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> plan(run)[0]
        Unit(model='tiny', chain='plain', task='lambada', seed=0, start=0, stop=1)
    """
    units = []
    for model, chain, name in run.pairs():
        entry, count = run.tasks[name], len(samples(run, name))
        for seed in run.seeds if entry.sampling else run.seeds[:1]:  # greedy answers do not depend on the seed
            size = entry.batch * WINDOW if _in_sorted_batches(entry) else entry.batch
            for start in range(0, count, size):
                stop = min(start + size, count)
                units.append(Unit(model=model, chain=chain, task=name, seed=seed, start=start, stop=stop))
    return units


def samples(run: Run, name: str) -> Sequence[Sample]:
    """Return the samples of a task that belong to the run."""
    return loading.samples_of_entry(run.tasks[name], run.folder)


def tuned_items(run: Run, name: str) -> set[str]:
    """Return the identifiers of the items of a task by which the settings of the run were chosen too.

    Two tasks have the same items if they have the same data and identifiers, also if their parameters differ.
    """
    if run.tuned is None:
        return set()
    used: set[str] = set()
    for entry in run.tuned.tasks.values():
        if _data_of(entry) == _data_of(run.tasks[name]):
            used |= {sample.id for sample in loading.samples_of_entry(entry, run.folder)}
    return used & {sample.id for sample in samples(run, name)}


def _data_of(entry: TaskEntry) -> str:
    """Return the name of the data of a task."""
    return entry.data or default_registry().describe_task(entry.task).data


def keys(run: Run, unit: Unit) -> list[str]:
    """Return the keys of a unit's records, the repeats of one sample next to each other.

    A key is 16 hex digits of everything that a record depends on: model, chain with the revisions of its processors,
    resources and their files, task settings, seed, batch, and the data of the sample. Settings at their defaults are
    left out, so that a new setting does not change the keys of old records.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> [len(key) for key in keys(run, plan(run)[0])]
        [16]
    """
    entry, chain = run.tasks[unit.task], Chain(run.chains[unit.chain].chain)
    named = set(chain.resource_names)
    metadata = {
        "model": run.models[unit.model].model_dump(mode="json", exclude_defaults=True),
        "chain": chain.hash,
        "resources": {name: loading.resource_metadata(run, name) for name in run.resources if name in named},
        "task": entry.model_dump(mode="json", exclude_defaults=True, exclude=NOT_IN_KEYS),
        "seed": unit.seed,
        "rows": [unit.start, unit.stop],
        "names": [unit.model, unit.chain, unit.task],
    }
    if _in_sorted_batches(entry):
        metadata["sorted"] = WINDOW
    return [
        digest({**metadata, "sample": sample.id, "hash": sample.hash, "repeat": repeat})
        for sample in samples(run, unit.task)[unit.start : unit.stop]
        for repeat in range(entry.repeats)
    ]


def _is_scored(entry: TaskEntry) -> bool:
    """Return whether the task scores given texts."""
    return default_registry().describe_task(entry.task).mode == "loglikelihood"


def _in_sorted_batches(entry: TaskEntry) -> bool:
    """Return whether the samples of a unit are scored in several batches, sorted by length."""
    return entry.batch > 1 and _is_scored(entry)


class _Answered(NamedTuple):
    """An answer and the fields that describe it in its record."""

    answer: Answer
    fields: dict[str, Any]


def run_unit(run: Run, unit: Unit) -> list[Record]:
    """Answer the samples of a unit and evaluate the answers.

    Returns:
        One record of plain data per sample and repeat, in order. ``seconds`` is the time of the batch divided by its
        rows. All other fields are reproducible on machines with the same arithmetic.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> (record,) = run_unit(run, plan(run)[0])
        >>> record['sample'], sorted(record['metrics'])
        ('0', ['accuracy', 'impossible', 'loss'])
    """
    entry, task = run.tasks[unit.task], loading.task(run, unit.task)
    chosen = samples(run, unit.task)[unit.start : unit.stop]
    model, tokenizer = loading.model_and_tokenizer(run, unit.model)
    chain = Chain(run.chains[unit.chain].chain)
    subject = Subject(chain, model, tokenizer, *loading.chain_resources(run, unit.model, chain))
    with pinned_settings(model):
        if _is_scored(entry):
            answers = _score_options(entry, task, chosen, subject)
        else:
            answers = _generate(entry, task, chosen, unit, subject)
    records = []
    for number, (key, answered) in enumerate(zip(keys(run, unit), answers, strict=True)):
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
                "revisions": loading.chain_revisions(chain),
                "metrics": task.judge(chosen[place], answered.answer),
                **answered.fields,
            }
        )
    return records


def _generate(entry: TaskEntry, task: Task, chosen: Sequence[Sample], unit: Unit, subject: Subject) -> list[_Answered]:
    """Generate an answer for each sample and repeat, all in one batch."""
    repeated = [(sample, repeat) for sample in chosen for repeat in range(entry.repeats)]
    requests = [task.request(sample, subject.tokenizer) for sample, _ in repeated]
    call = bind(
        subject.chain,
        subject.model,
        subject.tokenizer,
        [request.prompt for request in requests],
        trace=False,
        tokenizers=subject.tokenizers,
        resources=subject.resources,
        warn=False,  # as in `score_requests`
    )
    begun = time.perf_counter()
    rows = continue_prompts(
        call,
        max_new_tokens=entry.max_new_tokens,
        seeds=[seed_of(unit.seed, unit.task, s.id, repeat) for s, repeat in repeated] if entry.sampling else None,
        stops=[request.stops for request in requests],
        beams=entry.beams,
    )
    seconds = (time.perf_counter() - begun) / len(rows)
    steps = max(1, max(len(ids) for _, ids in rows))
    shared = _trace_fields(call.trace, steps) | {"seconds": round(seconds, 4)}
    answered = []
    for number, (text, ids) in enumerate(rows):
        answer = Answer(
            text=text,
            ids=tuple(ids),
            prompt_ids=tuple(call.prompts.tokens(number)),
            model=subject.model,
            tokenizer=subject.tokenizer,
        )
        answered.append(_Answered(answer, {"text": text, "tokens": len(ids), **shared}))
    return answered


def _score_options(entry: TaskEntry, task: Task, chosen: Sequence[Sample], subject: Subject) -> list[_Answered]:
    """Score the options of each sample under the chain."""
    requests = [task.request(sample, subject.tokenizer) for sample in chosen]
    answered = []
    for scored in score_requests(requests, subject, batch=entry.batch):
        totals = [option.total for option in scored.options]
        fields = {
            "options": [round(total, 6) if total > -float("inf") else None for total in totals],
            "tokens": sum(len(option.logp) for option in scored.options),
            **_trace_fields(scored.trace, steps=scored.steps),
            "seconds": round(scored.seconds, 4),
        }
        answer = Answer(options=scored.options, model=subject.model, tokenizer=subject.tokenizer)
        answered.append(_Answered(answer, fields))
    return answered


def _trace_fields(trace: Trace, steps: int) -> dict[str, Any]:
    """Return the counters of a trace: forwards besides the model's own, interventions, means, cost of a search."""
    fields = {
        "steps": steps,
        "forwards": dict(trace.forwards),
        "interventions": _rounded(trace.interventions),
        "means": _rounded(trace.means),
    }
    return fields if trace.search is None else _with_search(fields, trace.search)


def _with_search(fields: dict[str, Any], search: SearchReport) -> dict[str, Any]:
    """Return fields with the cost of a search, and its forwards beyond one for each step among the forwards."""
    further = {search.search: max(0, search.forwards - fields["steps"])}
    costs: dict[str, Any] = {"search": {name: getattr(search, name) for name in SEARCH_COSTS}}
    if search.peak_device_bytes is not None:
        costs["peak_device_bytes"] = search.peak_device_bytes
    return fields | {"forwards": fields["forwards"] | further} | costs


def _rounded(means: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return means by processor and quantity, rounded to six digits."""
    return {
        processor: {quantity: round(mean, 6) for quantity, mean in each.items()} for processor, each in means.items()
    }
