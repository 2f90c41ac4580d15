"""What can be known to go wrong in a run before any model is loaded."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from logitkit import models
from logitkit.bench.config import datasource, loading
from logitkit.bench.config.run import Run, TaskEntry
from logitkit.bench.tasks import sandbox
from logitkit.bench.tasks.task import Request
from logitkit.errors import LogitkitError, UnknownNameError
from logitkit.processors.engine.prompts import apply_template
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.task_spec import TaskSpec

Place = tuple[str, ...]
Mistake = tuple[Place, str]


def mistakes(run: Run, *, left_out: Collection[Place] = ()) -> list[Mistake]:
    """Everything that is wrong with a run, each with its place.

    Args:
        left_out: places of entries that were wrong in themselves, and are not in the run.
    """
    chains = {name: _chain(entry.chain) for name, entry in run.chains.items()}
    sound = {name: chain for name, chain in chains.items() if isinstance(chain, Chain)}
    found: list[Mistake] = [(("chains", name, "chain"), why) for name, why in chains.items() if isinstance(why, str)]
    found += [*_models(run), *_resources(run, sound, complete=not left_out and len(sound) == len(chains))]
    for name, entry in run.tasks.items():
        found += [(("tasks", name, *place), why) for place, why in _task(run, name, entry)]
        found += [(("tasks", name, *place), why) for place, why in _where(run, entry.models, None, left_out)]
    for name, chain in sound.items():
        found += [(("chains", name, *place), why) for place, why in _needs(run, chain)]
        found += [(("chains", name, *place), why) for place, why in _where(run, *_limits(run, name), left_out)]
        found += [(("chains", name), why) for why in _modes(run, name, chain)]
    return found + list(_whole(run, left_out))


def overlong_samples(run: Run) -> list[str]:
    """Samples that do not fit a model: prompt and longest option, or prompt and ``max_new_tokens``.

    Reads tokenizers and configurations, so a model that is not cached is downloaded; none is loaded.
    """
    found = []
    for model in run.models:
        tasks = dict.fromkeys(task for owner, _, task in run.pairs() if owner == model)
        if not tasks or run.models[model].bytes:
            continue
        tokenizer, limit = loading.tokenizer_and_context_length(run, model)
        most = math.inf if limit is None else limit
        for name in tasks:
            entry, task = run.tasks[name], loading.task(run, name)
            for sample in task.samples[: entry.samples]:
                count = _tokens(task.request(sample, tokenizer), tokenizer, entry.max_new_tokens)
                if count > most:
                    found.append(
                        f"tasks.{name}: sample {sample.id} must fit the {most} tokens of model {model}, got {count}; "
                        "ask fewer samples, lower max_new_tokens, or leave the model out"
                    )
                    break
    return found


def _tokens(request: Request, tokenizer: Any, new: int) -> int:
    """How many tokens a request takes at most."""
    if not isinstance(request.prompt, str):
        written = apply_template(tokenizer, request.prompt)
        return len(tokenizer(written, add_special_tokens=False)["input_ids"]) + new
    texts = [request.prompt + option for option in request.options] or [request.prompt]
    return max(len(tokenizer(text)["input_ids"]) for text in texts) + (0 if request.options else new)


def _chain(given: object) -> Chain | str:
    """A chain, or why it is none."""
    try:
        return Chain(given)  # type: ignore[arg-type]
    except LogitkitError as error:
        return " ".join(part.strip(" ^") for part in str(error).split("\n")).strip()


def _models(run: Run) -> Iterator[Mistake]:
    for name, entry in run.models.items():
        if not loading.is_model(run, entry.name):
            yield ("models", name), _no_model(entry.name)
        if (why := _device(entry.device)) is not None:
            yield ("models", name, "device"), why


def _device(name: str) -> str | None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        return f"device must be one that torch has here, got {name!r}"
    return None


def _no_model(name: str) -> str:
    return str(UnknownNameError("model", name, models.names(), "give a known name, a folder, or a hub id owner/name"))


def _resources(run: Run, chains: dict[str, Chain], *, complete: bool) -> Iterator[Mistake]:
    named = {text for chain in chains.values() for text in loading.texts_within(chain.as_data())}
    for name, entry in run.resources.items():
        kinds = [kind for kind in ("model", "table", "corpus") if getattr(entry, kind) is not None]
        if len(kinds) != 1:
            yield ("resources", name), f"must hold one of model, table and corpus, got {', '.join(kinds) or 'none'}"
        elif entry.model is not None and not loading.is_model(run, entry.model):
            yield ("resources", name, "model"), _no_model(entry.model)
        elif entry.table is not None and not (Path(run.folder) / entry.table).is_file():
            yield ("resources", name, "table"), f"no such file: {Path(run.folder) / entry.table}"
        elif entry.corpus is not None:
            try:
                datasource.text(entry.corpus, run.folder, encoding=entry.encoding)
            except LogitkitError as error:
                yield ("resources", name, "corpus"), str(error)
        if complete and name not in named:
            yield ("resources", name), "no chain names it"


def _task(run: Run, name: str, entry: TaskEntry) -> Iterator[Mistake]:
    try:
        spec = default_registry().describe_task(entry.task)
        spec.check(entry.parameters)
    except LogitkitError as error:
        yield ("task",) if isinstance(error, UnknownNameError) and error.kind == "task" else ("parameters",), str(error)
        return
    yield from _settings(spec, entry)
    if spec.executes and not run.allow_code_execution:
        kept = "has no network" if sandbox.isolation() == "namespace" else "is guarded by the interpreter alone"
        yield (), f"runs what the model writes; say --allow-code-execution (the process {kept} here)"
    try:
        count = len(loading.task(run, name).samples)
    except LogitkitError as error:
        yield ("data",), str(error)
        return
    if entry.samples is not None and entry.samples > count:
        yield ("samples",), f"samples must be at most what the data hold, {count}, got {entry.samples}"


def _settings(spec: TaskSpec, entry: TaskEntry) -> Iterator[Mistake]:
    """Settings that contradict each other or the task."""
    if spec.mode == "loglikelihood":
        if entry.sampling or entry.repeats > 1 or entry.beams > 1:
            yield (), "scores given texts, so sampling, repeats and beams must be left out"
        return
    if entry.repeats > 1 and not entry.sampling:
        yield ("repeats",), f"repeats must be 1 without sampling, got {entry.repeats}: all answers would be the same"
    if entry.beams > 1 and entry.sampling:
        yield ("beams",), f"beams must be 1 with sampling, got {entry.beams}"


def _needs(run: Run, chain: Chain) -> Iterator[Mistake]:
    """Models and tables that a chain names and nobody gives."""
    for spec, (_, given) in zip(chain.specs, chain.steps, strict=True):
        required = {name for name, field in spec.model.model_fields.items() if field.is_required()}
        for name in loading.needed(spec, {key: value for key, value in given.items() if key in required}):
            if name not in run.resources and not loading.is_model(run, name) and not Path(name).is_file():
                known = ", ".join(run.resources) or "none"
                yield ("chain",), f"{spec.name} names {name!r}, which is no resource (known: {known}), model or file"


def _limits(run: Run, chain: str) -> tuple[list[str] | None, list[str] | None]:
    return run.chains[chain].models, run.chains[chain].tasks


def _where(
    run: Run, models: list[str] | None, tasks: list[str] | None, left_out: Collection[Place]
) -> Iterator[Mistake]:
    """Models and tasks that an entry is limited to and the run does not have."""
    for section, chosen, known in (("models", models, run.models), ("tasks", tasks, run.tasks)):
        for name in chosen or []:
            if name not in known and (section, name) not in {place[:2] for place in left_out}:
                yield (section,), str(UnknownNameError(section[:-1], name, known))


def _modes(run: Run, name: str, chain: Chain) -> Iterator[str]:
    """Ways of decoding that a processor refuses and some task or model of the run asks for."""
    asked: dict[str, list[str]] = {}
    for model, _, task in (pair for pair in run.pairs() if pair[1] == name):
        entry = run.tasks[task]
        with contextlib.suppress(UnknownNameError):
            if default_registry().describe_task(entry.task).mode == "loglikelihood":
                asked.setdefault("loglikelihood", []).append(f"task {task}")
        if entry.beams > 1:
            asked.setdefault("beams", []).append(f"task {task}")
        if not run.models[model].bytes:
            asked.setdefault("tokens", []).append(f"model {model}")
    for spec in chain.specs:
        for what, who in asked.items():
            if what in spec.modes:
                where = ", ".join(dict.fromkeys(who))
                yield f"{spec.name} cannot run under {what} ({where}): {spec.modes[what]}"


def _whole(run: Run, left_out: Collection[Place]) -> Iterator[Mistake]:
    if not run.seeds or len(set(run.seeds)) < len(run.seeds):
        yield ("seeds",), f"seeds must be different whole numbers, got {run.seeds!r}"
    if left_out or not run.chains or not run.models or not run.tasks:
        return
    if run.compared_with not in run.chains:
        yield ("baseline",), str(UnknownNameError("chain", run.compared_with, run.chains))
        return
    pairs = run.pairs()
    for model, name, task in pairs:
        if (model, run.compared_with, task) not in pairs:
            yield ("chains", name), f"the baseline {run.compared_with!r} must run wherever it does: {model}, {task}"
            return
