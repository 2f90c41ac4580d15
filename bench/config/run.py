"""A run of the benchmark as data: tasks x chains x models x seeds. It holds no model and can be sent anywhere."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from logitkit.params import Parameters, option, whole


class ModelEntry(Parameters):
    """A model that generates."""

    name: Annotated[str, option("a known model, a folder, or a hub id")]
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], option("of its weights")] = "float32"
    device: Annotated[str, option("where it runs: cpu, cuda, cuda:1 ...")] = "cpu"
    bytes: Annotated[bool, option("as a model over bytes, whatever its tokenizer")] = False


class ResourceEntry(Parameters):
    """Something that chains name: a model, a table of n-grams, or a corpus that a table is counted from."""

    model: Annotated[str | None, option("a known model, a folder, or a hub id")] = None
    table: Annotated[str | None, option("a table file, *.safetensors")] = None
    corpus: Annotated[str | None, option("a text file, here or in LOGITKIT_DATA")] = None
    half: Annotated[Literal["first", "second", "whole"], option("which part of the corpus is counted")] = "whole"
    encoding: Annotated[str, option("of the corpus")] = "utf-8"
    orders: Annotated[int, whole("longest n-gram", ge=1, le=5)] = 3
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], option("of a model's weights")] = "float32"


class ChainEntry(Parameters):
    """A strategy: a chain and where it is run."""

    chain: Annotated[str | list[dict[str, Any]], option("text, or a list of {name, params}; empty: plain decoding")] = (
        ""
    )
    models: Annotated[list[str] | None, option("models it is run on; all by default")] = None
    tasks: Annotated[list[str] | None, option("tasks it is run on; all by default")] = None


class TaskEntry(Parameters):
    """A task and how its answers are made."""

    task: Annotated[str, option("name of a task; by default the entry's own")]
    samples: Annotated[int | None, whole("how many of the data's items, the first ones; all by default", ge=1)] = None
    data: Annotated[str | None, option("a data file, instead of the one in LOGITKIT_DATA")] = None
    encoding: Annotated[str | None, option("of the data file")] = None
    repeats: Annotated[int, whole("answers to each item", ge=1)] = 1
    sampling: Annotated[bool, option("draw tokens, or take the likeliest")] = False
    max_new_tokens: Annotated[int, whole("longest continuation", ge=1)] = 128
    beams: Annotated[int, whole("beams of a search", ge=1)] = 1
    batch: Annotated[int, whole("items decoded together", ge=1)] = 1
    models: Annotated[list[str] | None, option("models it is asked of; all by default")] = None
    parameters: Annotated[dict[str, Any], option("of the task itself")] = {}  # noqa: RUF012


class CostEntry(Parameters):
    """How the cost of strategies is measured: paired rounds in which every chain decodes the same prompts."""

    rounds: Annotated[int, whole("rounds that count", ge=1)] = 5
    tokens: Annotated[int, whole("new tokens a prompt", ge=2)] = 32
    batch: Annotated[int, whole("prompts", ge=1)] = 1
    memory: Annotated[bool, option("measure the peak of tensors, too")] = True


class Run(Parameters):
    """One run.

    Attributes:
        folder: where relative paths start; no part of what the run is.
    """

    models: Annotated[dict[str, ModelEntry], option("models by name")]
    chains: Annotated[dict[str, ChainEntry], option("strategies by name")]
    tasks: Annotated[dict[str, TaskEntry], option("tasks by name")]
    resources: Annotated[dict[str, ResourceEntry], option("what chains name")] = {}  # noqa: RUF012
    seeds: Annotated[list[int], option("of the sampling: drawn answers are made once for each")] = [0]  # noqa: RUF012
    baseline: Annotated[str, option("the strategy that others are compared with; the first by default")] = ""
    cost: Annotated[CostEntry | None, option("how cost is measured; left out: it is not")] = None
    allow_code_execution: Annotated[bool, option("let tasks run what a model wrote")] = False
    folder: Annotated[str, option("where relative paths start")] = "."

    @property
    def hash(self) -> str:
        """16 hex digits of what the run is; a setting that is added one day, left at its default, changes none."""
        hidden = {"folder", "allow_code_execution"}
        return digest(self.model_dump(mode="json", exclude_defaults=True, exclude=hidden))

    @property
    def compared_with(self) -> str:
        """Name of the strategy that others are compared with."""
        return self.baseline or next(iter(self.chains))

    def pairs(self) -> list[tuple[str, str, str]]:
        """Every (model, chain, task) of the run, in order."""
        return [
            (model, name, task)
            for model in self.models
            for name, chain in self.chains.items()
            for task, entry in self.tasks.items()
            if (chain.models is None or model in chain.models)
            and (chain.tasks is None or task in chain.tasks)
            and (entry.models is None or model in entry.models)
        ]


def digest(data: Any) -> str:
    """16 hex digits of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
