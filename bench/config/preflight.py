"""Checks of a run that need no model: names, chains, resources, data, and settings that contradict each other."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from logitkit import models
from logitkit.bench.config import datasource, loading
from logitkit.bench.config.run import HypothesisEntry, Run, TaskEntry
from logitkit.bench.config.splits import items_of
from logitkit.bench.tasks import sandbox
from logitkit.bench.tasks.task import Request
from logitkit.errors import LogitkitError, UnknownNameError
from logitkit.files import is_file
from logitkit.processors.engine.chats import apply_template
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.task_spec import TaskSpec

Place = tuple[str, ...]  # keys from the top of the run file, such as ("tasks", "arc", "samples")
Mistake = tuple[Place, str]


def mistakes(run: Run, *, left_out: Collection[Place] = ()) -> list[Mistake]:
    """Return every mistake of a run with its place.

    Args:
        run: a run in which each single entry is valid.
        left_out: places of invalid entries, which ``run`` does not contain. References to them are not reported.
    """
    chains = {name: _read_chain(entry.chain) for name, entry in run.chains.items()}
    valid = {name: chain for name, chain in chains.items() if isinstance(chain, Chain)}
    placed: list[Mistake] = [(("chains", name, "chain"), why) for name, why in chains.items() if isinstance(why, str)]
    placed += [*_models(run), *_resources(run, valid, complete=not left_out and len(valid) == len(chains))]
    for name, task in run.tasks.items():
        within = [*_task(run, name, task), *_limits(run, task.models, None, left_out)]
        placed += [(("tasks", name, *place), why) for place, why in within]
    for name, chain in valid.items():
        entry = run.chains[name]
        within = [*_missing_resources(run, chain), *_limits(run, entry.models, entry.tasks, left_out)]
        placed += [(("chains", name, *place), why) for place, why in within]
        placed += [(("chains", name), why) for why in _refused_modes(run, name, chain)]
    placed += [(("hypotheses", str(number), *place), why) for number, place, why in _hypotheses(run, left_out)]
    for name, tuning in run.tuned.tasks.items() if run.tuned else ():
        try:
            loading.samples_of_entry(tuning, run.folder)
        except LogitkitError as error:
            placed.append((("tuned", "tasks", name), str(error)))
    return placed + list(_whole_run(run, left_out))


def overlong_samples(run: Run) -> list[str]:
    """Return a message for each task and model with a sample that does not fit the model's context.

    A sample needs room for its prompt and longest option, or for its prompt and ``max_new_tokens``. Tokenizers and
    configurations are read, so a model that is not cached is downloaded; no weights are loaded.

    Examples:
        >>> import pathlib, tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> overlong_samples(run)
        []
    """
    messages = []
    for model in run.models:
        tasks = dict.fromkeys(task for owner, _, task in run.pairs() if owner == model)
        if not tasks or run.models[model].bytes:
            continue
        tokenizer, context = loading.tokenizer_and_context_length(run, model)
        limit = math.inf if context is None else context
        for name in tasks:
            entry, task = run.tasks[name], loading.task(run, name)
            for sample in items_of(entry, task.samples)[: entry.samples]:
                count = _token_count(task.request(sample, tokenizer), tokenizer, entry.max_new_tokens)
                if count > limit:
                    messages.append(
                        f"tasks.{name}: sample {sample.id} must fit the {limit} tokens of model {model}, got {count}; "
                        "reduce samples, lower max_new_tokens, or leave the model out"
                    )
                    break
    return messages


def _token_count(request: Request, tokenizer: Any, new: int) -> int:
    """Return the largest number of tokens that a request and its answer can take."""
    if not isinstance(request.prompt, str):
        written = apply_template(tokenizer, request.prompt)
        return len(tokenizer(written, add_special_tokens=False)["input_ids"]) + new
    texts = [request.prompt + option for option in request.options] or [request.prompt]
    return max(len(tokenizer(text)["input_ids"]) for text in texts) + (0 if request.options else new)


def _read_chain(chain: object) -> Chain | str:
    """Return the chain, or the reason why it cannot be read, in one line."""
    try:
        return Chain(chain)  # type: ignore[arg-type]
    except LogitkitError as error:
        return " ".join(part.strip(" ^") for part in str(error).split("\n")).strip()


def _models(run: Run) -> Iterator[Mistake]:
    """Yield models with an unknown name or device."""
    for name, entry in run.models.items():
        if not loading.is_model(run, entry.name):
            yield ("models", name), _unknown_model(entry.name)
        if (why := _unavailable_device(entry.device)) is not None:
            yield ("models", name, "device"), why


def _unavailable_device(name: str) -> str | None:
    """Return a message if torch cannot use a device on this machine."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        return f"device must be a device that torch has on this machine, got {name!r}"
    return None


def _unknown_model(name: str) -> str:
    """Return the message for a name that no model has."""
    return str(UnknownNameError("model", name, models.names(), "give a known name, a folder, or a hub id owner/name"))


def _resources(run: Run, chains: dict[str, Chain], *, complete: bool) -> Iterator[Mistake]:
    """Yield resources without a source, with a missing source, and, if all chains are known, unused ones."""
    used = {name for chain in chains.values() for name in chain.resource_names}
    for name, entry in run.resources.items():
        kinds = [kind for kind in ("model", "table", "corpus") if getattr(entry, kind) is not None]
        if len(kinds) != 1:
            yield ("resources", name), f"must hold one of model, table and corpus, got {', '.join(kinds) or 'none'}"
        elif entry.model is not None and not loading.is_model(run, entry.model):
            yield ("resources", name, "model"), _unknown_model(entry.model)
        elif entry.table is not None and not is_file(Path(run.folder) / entry.table):
            yield ("resources", name, "table"), f"no such file: {Path(run.folder) / entry.table}"
        elif entry.corpus is not None:
            try:
                datasource.text(entry.corpus, run.folder, encoding=entry.encoding)
            except LogitkitError as error:
                yield ("resources", name, "corpus"), str(error)
        if complete and name not in used:
            yield ("resources", name), "no chain uses this resource"


def _task(run: Run, name: str, entry: TaskEntry) -> Iterator[Mistake]:
    """Yield an unknown task, invalid settings, missing permission to execute code, and missing data."""
    try:
        spec = default_registry().describe_task(entry.task)
        spec.check(entry.parameters)
    except LogitkitError as error:
        yield ("task",) if isinstance(error, UnknownNameError) and error.kind == "task" else ("parameters",), str(error)
        return
    yield from _contradictions(spec, entry)
    if spec.executes and not run.allow_code_execution:
        isolated = sandbox.isolation() == "namespace"
        fence = "without a network" if isolated else "restricted by the interpreter alone"
        yield (), f"executes programs that the model writes; pass --allow-code-execution (they run {fence} here)"
    try:
        count = len(items_of(entry, loading.task(run, name).samples))
    except LogitkitError as error:
        yield ("data",), str(error)
        return
    if entry.samples is not None and entry.samples > count:
        where = "in the data" if entry.split is None else f"of the {entry.split} split"
        yield ("samples",), f"samples must be at most {count}, the number of samples {where}, got {entry.samples}"
    if count == 0 and entry.split is not None:
        yield ("split",), f"split must have an item, got none in {entry.split!r}; change development_share"


def _contradictions(spec: TaskSpec, entry: TaskEntry) -> Iterator[Mistake]:
    """Yield settings that contradict each other or the task."""
    if spec.mode == "loglikelihood":
        if entry.sampling or entry.repeats > 1 or entry.beams > 1:
            yield (), "the task scores given texts; leave out sampling, repeats and beams"
        return
    if entry.repeats > 1 and not entry.sampling:
        yield ("repeats",), f"repeats must be 1 without sampling, got {entry.repeats}: greedy answers are all equal"
    if entry.beams > 1 and entry.sampling:
        yield ("beams",), f"beams must be 1 with sampling, got {entry.beams}"


def _missing_resources(run: Run, chain: Chain) -> Iterator[Mistake]:
    """Yield models and files that a chain requires and that neither the run nor the machine provides."""
    for spec, (_, parameters) in zip(chain.specs, chain.steps, strict=True):
        required = {name for name, field in spec.model.model_fields.items() if field.is_required()}
        for name in spec.resource_names({key: value for key, value in parameters.items() if key in required}):
            if name not in run.resources and not loading.is_model(run, name) and not is_file(name):
                known = ", ".join(run.resources) or "none"
                yield (
                    ("chain",),
                    f"{spec.name} names {name!r}, which is not a resource (known: {known}), a model or a file",
                )


def _limits(
    run: Run, models: list[str] | None, tasks: list[str] | None, left_out: Collection[Place]
) -> Iterator[Mistake]:
    """Yield models and tasks that an entry is limited to and that the run does not have."""
    for section, chosen, known in (("models", models, run.models), ("tasks", tasks, run.tasks)):
        for name in chosen or []:
            if name not in known and (section, name) not in {place[:2] for place in left_out}:
                yield (section,), str(UnknownNameError(section[:-1], name, known))


def _refused_modes(run: Run, name: str, chain: Chain) -> Iterator[str]:
    """Yield the modes that a processor of a chain refuses and that a task or model of the run needs."""
    users: dict[str, list[str]] = {}  # mode -> tasks and models that need it
    for model, _, task in (pair for pair in run.pairs() if pair[1] == name):
        entry = run.tasks[task]
        with contextlib.suppress(UnknownNameError):
            if default_registry().describe_task(entry.task).mode == "loglikelihood":
                users.setdefault("loglikelihood", []).append(f"task {task}")
        if entry.beams > 1:
            users.setdefault("beams", []).append(f"task {task}")
        if not run.models[model].bytes:
            users.setdefault("tokens", []).append(f"model {model}")
    for spec in chain.specs:
        for mode, entries in users.items():
            if mode in spec.modes:
                where = ", ".join(dict.fromkeys(entries))
                yield f"{spec.name} cannot run under {mode} ({where}): {spec.modes[mode]}"


def _hypotheses(run: Run, left_out: Collection[Place]) -> Iterator[tuple[int, Place, str]]:
    """Yield the names in hypotheses that nothing has, with the number of the hypothesis from 1."""
    absent = {place[1] for place in left_out if len(place) > 1}
    chains = {*run.chains, *run.strategies()}
    compared: dict[Any, int] = {}  # comparison -> number of the hypothesis about it
    for number, entry in enumerate(run.hypotheses, 1):
        pair = frozenset({entry.chain, entry.against or run.compared_with})
        metric = entry.metric or (_main_metric(run.tasks[entry.task]) if entry.task in run.tasks else "")
        for model in [entry.model] if entry.model else run.models:
            earlier = compared.setdefault((pair, entry.task, metric, model), number)
            if earlier != number:
                yield (
                    number,
                    ("chain",),
                    f"each comparison must have one hypothesis, got another in hypothesis {earlier}",
                )
                break
        named = {"chain": chains, "against": chains, "task": run.tasks, "model": run.models}
        for key, known in named.items():
            name = getattr(entry, key)
            if name and name not in known and name not in absent:
                yield number, (key,), str(UnknownNameError("chain" if key == "against" else key, name, known))
        if entry.chain == (entry.against or run.compared_with):
            yield (
                number,
                ("chain",),
                f"chain must be another chain than the one it is compared with, got {entry.chain!r}",
            )
        if entry.task in run.tasks:
            yield from ((number, ("metric",), why) for why in _metric(run.tasks[entry.task], entry))


def _main_metric(task: TaskEntry) -> str:
    """Return the name of the main metric of a task; nothing for an unknown task, which is reported elsewhere."""
    with contextlib.suppress(LogitkitError):
        return str(next(iter(default_registry().describe_task(task.task).factory.metrics)).name)
    return ""


def _metric(task: TaskEntry, entry: HypothesisEntry) -> Iterator[str]:
    """Yield a metric that a task does not have, or that has no better direction though the hypothesis has one."""
    with contextlib.suppress(LogitkitError):  # an unknown task is reported elsewhere
        metrics = {metric.name: metric for metric in default_registry().describe_task(task.task).factory.metrics}
        name = entry.metric or next(iter(metrics))
        if name not in metrics:
            yield str(UnknownNameError("metric", name, metrics))
        elif metrics[name].better is None and entry.expect != "different":
            yield f"{name} has no better direction, so expect must be 'different', got {entry.expect!r}"


def _whole_run(run: Run, left_out: Collection[Place]) -> Iterator[Mistake]:
    """Yield repeated seeds, an unknown baseline, and chains that run where the baseline does not."""
    if not run.seeds or len(set(run.seeds)) < len(run.seeds):
        yield ("seeds",), f"seeds must be different whole numbers, got {run.seeds!r}"
    if not run.chains or not run.models or not run.tasks:
        return
    if run.compared_with not in run.chains:
        if ("chains", run.compared_with) not in {place[:2] for place in left_out}:
            yield ("baseline",), str(UnknownNameError("chain", run.compared_with, run.chains))
        return
    if left_out:
        return
    pairs = run.pairs()
    for model, name, task in pairs:
        if (model, run.compared_with, task) not in pairs:
            yield (
                ("chains", name),
                f"the baseline {run.compared_with!r} must also run on model {model}, task {task}",
            )
            return
