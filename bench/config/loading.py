"""Models, tables and tasks of a run, loaded once a process and kept."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from logitkit import models
from logitkit.bench.config import datasource
from logitkit.bench.config.run import ResourceEntry, Run
from logitkit.bench.tasks.passages import halves
from logitkit.bench.tasks.task import Task
from logitkit.processors.model_facts import context_length
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.spec import Spec

KEPT = 8
FILES = (".safetensors", ".json", ".yaml", ".yml", ".txt", ".npz")  # endings of names that are no hub id
_TASKS: dict[str, Task] = {}
_TABLES: dict[str, Any] = {}


def model_and_tokenizer(run: Run, name: str) -> tuple[Any, Any]:
    """The model of this name in a run and its tokenizer."""
    entry = run.models[name]
    place = model_place(run, entry.name)
    return _bytes(place, entry.dtype, entry.device) if entry.bytes else _model(place, entry.dtype, entry.device)


def tokenizer_and_context_length(run: Run, name: str) -> tuple[Any, int | None]:
    """The tokenizer of a model of a run and how many tokens the model reads, None without a limit; loads no model."""
    from transformers import AutoConfig

    place = model_place(run, run.models[name].name)
    tokenizer = models.load_tokenizer(place)
    folder = str(models.pull(place)) if place in models.names() else place
    config = AutoConfig.from_pretrained(folder, local_files_only=Path(folder).is_dir())
    return tokenizer, context_length(config)


def task(run: Run, name: str) -> Task:
    """The task of this name in a run, with its samples.

    Raises:
        DataError: its data cannot be found.
    """
    entry = run.tasks[name]
    told = [entry.task, entry.data, entry.encoding, entry.parameters]
    key = json.dumps([*told, run.folder, os.environ.get(datasource.VARIABLE)])
    if key not in _TASKS:
        spec = default_registry().describe_task(entry.task)
        rows = datasource.rows(spec, entry.data, run.folder, encoding=entry.encoding)
        _TASKS[key] = spec.build(rows, spec.check(entry.parameters))
    return _TASKS[key]


def chain_resources(run: Run, model: str, chain: Chain) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a chain names, for `Chain.bind`: resources, and the tokenizers of models among them.

    Models that a parameter names without a resource of the run are loaded here too, or each call would load them.
    """
    found: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    entry = run.models[model]
    for name in sorted(set(texts_within(chain.as_data()))):
        if name in run.resources:
            resource = run.resources[name]
            if resource.model is None:
                found[name] = _table(run, resource, model_and_tokenizer(run, model)[1])
                continue
            found[name], tokenizers[name] = _model(model_place(run, resource.model), resource.dtype, entry.device)
            if entry.bytes:
                found[name], tokenizers[name] = _bytes(model_place(run, resource.model), resource.dtype, entry.device)
    for spec, (_, given) in zip(chain.specs, chain.steps, strict=True):
        for name in needed(spec, given):
            if name not in found and is_model(run, name):
                found[name], tokenizers[name] = _model(model_place(run, name), entry.dtype, entry.device)
    return found, tokenizers


def resource_metadata(run: Run, name: str) -> dict[str, Any]:
    """What a resource is, as part of the key of a result: its entry without defaults, and its file's content."""
    entry = run.resources[name]
    told: dict[str, Any] = entry.model_dump(mode="json", exclude_defaults=True)
    file = entry.corpus or entry.table
    return told if file is None else {**told, "content": datasource.file_hash(file, run.folder)}


def needed(spec: Spec, given: Mapping[str, Any]) -> list[str]:
    """Values of the parameters that a Spec's ``needs`` begin with, such as ``large`` and ``models``."""
    fields = [
        word for need in spec.needs for word in need.partition(":")[0].split(" and ") if word in spec.model.model_fields
    ]
    return [text for field in fields if field in given for text in texts_within(given[field])]


def texts_within(value: Any) -> Iterator[str]:
    """Every text inside plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from texts_within(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts_within(part)


def is_model(run: Run, name: str) -> bool:
    """Whether a name of a run leads to a model; see `leads_to_model`."""
    return leads_to_model(model_place(run, name))


def leads_to_model(name: str) -> bool:
    """Whether `logitkit.models.load` would try this name: known, a folder of a model, or like a hub id."""
    if name in models.names() or (Path(name).expanduser() / "config.json").is_file():
        return True
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and "/" not in rest and not name.startswith((".", "~")) and not name.endswith(FILES)


def model_place(run: Run, name: str) -> str:
    """A model's name, or the folder beside the run file that it means."""
    beside = Path(run.folder) / Path(name).expanduser()
    return str(beside.resolve()) if beside.is_dir() else name


@functools.lru_cache(maxsize=KEPT)
def _model(place: str, dtype: str, device: str) -> tuple[Any, Any]:
    import torch

    like = SimpleNamespace(dtype=getattr(torch, dtype), device=torch.device(device))
    loaded: tuple[Any, Any] = models.load(place, like=like)
    return loaded


@functools.lru_cache(maxsize=KEPT)
def _bytes(place: str, dtype: str, device: str) -> tuple[Any, Any]:
    from logitkit.processors.byte_level.model import ByteModel
    from logitkit.processors.byte_level.tokenizer import byte_tokenizer

    return ByteModel(*_model(place, dtype, device)), byte_tokenizer()


def _table(run: Run, entry: ResourceEntry, tokenizer: Any) -> Any:
    """A table of n-grams, read or counted."""
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
