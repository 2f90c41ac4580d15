"""Models, tables and tasks of a run. Each is loaded once per process and cached."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from logitkit import models
from logitkit.bench.config import datasource
from logitkit.bench.config.run import ResourceEntry, Run, TaskEntry
from logitkit.bench.config.splits import items_of
from logitkit.bench.tasks.passages import halves
from logitkit.bench.tasks.task import Sample, Task
from logitkit.files import is_file, is_folder
from logitkit.processors.model_facts import context_length
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry

CACHED_MODELS = 8
FILE_ENDINGS = (".safetensors", ".json", ".yaml", ".yml", ".txt", ".npz")  # a name with such an ending is no hub id
_TASKS: dict[str, Task] = {}
_TABLES: dict[str, Any] = {}


def model_and_tokenizer(run: Run, name: str) -> tuple[Any, Any]:
    """Return the model of this name in a run, and its tokenizer."""
    entry = run.models[name]
    place = model_place(run, entry.name)
    load = _load_byte_model if entry.bytes else _load_model
    loaded: tuple[Any, Any] = load(place, entry.dtype, entry.device)
    return loaded


def tokenizer_and_context_length(run: Run, name: str) -> tuple[Any, int | None]:
    """Return a model's tokenizer and its context length in tokens, None without a limit. Loads no weights."""
    from transformers import AutoConfig

    place = model_place(run, run.models[name].name)
    tokenizer = models.load_tokenizer(place)
    folder = str(models.pull(place)) if place in models.names() else place
    config = AutoConfig.from_pretrained(folder, local_files_only=is_folder(folder))
    return tokenizer, context_length(config)


def task(run: Run, name: str) -> Task:
    """Return the task of this name in a run, with its samples.

    Raises:
        DataError: no place holds the task's data.
    """
    return task_of_entry(run.tasks[name], run.folder)


def task_of_entry(entry: TaskEntry, folder: str) -> Task:
    """Return the task of an entry whose relative paths start at a folder.

    Raises:
        DataError: no place holds the task's data.
    """
    settings = [entry.task, entry.data, entry.encoding, entry.parameters]
    key = json.dumps([*settings, str(Path(folder).absolute()), os.environ.get(datasource.VARIABLE)])
    if key not in _TASKS:
        spec = default_registry().describe_task(entry.task)
        rows = datasource.rows(spec, entry.data, folder, encoding=entry.encoding)
        _TASKS[key] = spec.build(rows, spec.check(entry.parameters))
    return _TASKS[key]


def samples_of_entry(entry: TaskEntry, folder: str) -> Sequence[Sample]:
    """Return the samples of an entry: those of its split, and of these the first ``samples``."""
    return items_of(entry, task_of_entry(entry, folder).samples)[: entry.samples]


def chain_resources(run: Run, model: str, chain: Chain) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the resources that a chain names, and the tokenizers of the models among them, for `Chain.bind`.

    Includes models that a parameter names by hub id or folder without a resource entry. `Chain.bind` would otherwise
    load these models again at every call.
    """
    resources: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    entry = run.models[model]
    for name in chain.resource_names:
        if name not in run.resources:
            continue
        resource = run.resources[name]
        if resource.model is None:
            resources[name] = _table(run, resource, model_and_tokenizer(run, model)[1])
            continue
        load = _load_byte_model if entry.bytes else _load_model
        place = model_place(run, resource.model)
        resources[name], tokenizers[name] = load(place, resource.dtype, entry.device)
    for name in chain.model_names:
        if name not in resources and is_model(run, name):
            place = model_place(run, name)
            resources[name], tokenizers[name] = _load_model(place, entry.dtype, entry.device)
    return resources, tokenizers


def resource_metadata(run: Run, name: str) -> dict[str, Any]:
    """Return what identifies a resource in the key of a result: its settings, and the hash of its file."""
    entry = run.resources[name]
    metadata: dict[str, Any] = entry.model_dump(mode="json", exclude_defaults=True)
    file = entry.corpus or entry.table
    return metadata if file is None else {**metadata, "content": datasource.file_hash(file, run.folder)}


def chain_revisions(chain: Chain) -> dict[str, int]:
    """Return the revision of each processor of a chain, as records and manifests state it.

    Examples:
        >>> list(chain_revisions(Chain("cfg(1.5) | top_p(0.9)")))
        ['cfg', 'top_p']
    """
    return {spec.name: spec.revision for spec in chain.specs}


def is_model(run: Run, name: str) -> bool:
    """Return whether a name in a run refers to a model; see `is_model_name`."""
    return is_model_name(model_place(run, name))


def is_model_name(name: str) -> bool:
    """Return whether `logitkit.models.load` accepts this name: a known model, a model's folder, or a hub id.

    A hub id is recognised by its form ``owner/name``, without a request to the hub.

    Examples:
        >>> is_model_name("owner/name"), is_model_name("tables/style.safetensors")
        (True, False)
    """
    if name in models.names() or is_file(Path(name).expanduser() / "config.json"):
        return True
    owner, _, model = name.partition("/")
    is_path = "/" in model or name.startswith((".", "~")) or name.endswith(FILE_ENDINGS)
    return bool(owner and model) and not is_path


def model_place(run: Run, name: str) -> str:
    """Return the folder beside the run file that has this name, else the name itself."""
    beside = Path(run.folder) / Path(name).expanduser()
    return str(beside.resolve()) if is_folder(beside) else name


def clear_caches() -> None:
    """Drop all cached models, tables and tasks; later calls load them again."""
    _load_model.cache_clear()
    _load_byte_model.cache_clear()
    _TASKS.clear()
    _TABLES.clear()


@functools.lru_cache(maxsize=CACHED_MODELS)
def _load_model(place: str, dtype: str, device: str) -> tuple[Any, Any]:
    """Load a model and its tokenizer."""
    import torch

    like = SimpleNamespace(dtype=getattr(torch, dtype), device=torch.device(device))
    loaded: tuple[Any, Any] = models.load(place, like=like)
    return loaded


@functools.lru_cache(maxsize=CACHED_MODELS)
def _load_byte_model(place: str, dtype: str, device: str) -> tuple[Any, Any]:
    """Load a model as a byte-level model, with the tokenizer of bytes."""
    from logitkit.processors.byte_level.model import ByteModel
    from logitkit.processors.byte_level.tokenizer import byte_tokenizer

    return ByteModel(*_load_model(place, dtype, device)), byte_tokenizer()


def _table(run: Run, entry: ResourceEntry, tokenizer: Any) -> Any:
    """Return a table of n-grams: read from its file, or counted from its corpus with this tokenizer."""
    from logitkit.processors.ngram.table import NgramTable
    from logitkit.processors.tokens.vocabulary import fingerprint

    key = json.dumps([entry.model_dump(), datasource.file_hash(str(entry.corpus or entry.table), run.folder)])
    key += fingerprint(tokenizer)
    if key not in _TABLES:
        if entry.table is not None:
            _TABLES[key] = NgramTable.load(str(Path(run.folder) / entry.table))
        else:
            text = datasource.text(str(entry.corpus), run.folder, encoding=entry.encoding)
            text = text if entry.half == "whole" else halves(text)[entry.half == "second"]
            _TABLES[key] = NgramTable.train([text], tokenizer, orders=entry.orders)
    return _TABLES[key]
