"""A run of the benchmark as data: tasks x chains x models x seeds.

A run holds no model and no data rows, so it can be hashed, pickled and sent to other machines.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from logitkit.params import Parameters, number, option, whole

Split = Literal["development", "held_out"]
Dtype = Literal["float32", "bfloat16", "float16"]


class ModelEntry(Parameters):
    """A generating model of a run.

    Examples:
        >>> ModelEntry(name="smollm2-135m").dtype
        'float32'
    """

    name: Annotated[str, option("a known model, a folder, or a hub id")]
    dtype: Annotated[Dtype, option("dtype of the weights")] = "float32"
    device: Annotated[str, option("torch device of the model, such as cpu, cuda or cuda:1")] = "cpu"
    bytes: Annotated[bool, option("wrap the model as a byte-level model")] = False


class ResourceEntry(Parameters):
    """A resource that chains name: a model, a table of n-grams, or a corpus from which a table is counted.

    Examples:
        >>> ResourceEntry(corpus="book.txt", half="first").orders
        3
    """

    model: Annotated[str | None, option("a known model, a folder, or a hub id")] = None
    table: Annotated[str | None, option("a table file, *.safetensors")] = None
    corpus: Annotated[str | None, option("a text file beside the run file or in LOGITKIT_DATA")] = None
    half: Annotated[Literal["first", "second", "whole"], option("part of the corpus that is counted")] = "whole"
    encoding: Annotated[str, option("encoding of the corpus")] = "utf-8"
    orders: Annotated[int, whole("length of the longest n-gram", ge=1, le=5)] = 3
    dtype: Annotated[Dtype, option("dtype of a model's weights")] = "float32"


class ChainEntry(Parameters):
    """A strategy of a run: a chain, and the models and tasks that it is limited to.

    Examples:
        >>> ChainEntry(chain="cfg(1.5)", tasks=["lambada"]).models is None
        True
    """

    chain: Annotated[
        str | list[dict[str, Any]],
        option("chain as text, list of {name, params}, or chain file; empty for plain decoding"),
    ] = ""
    models: Annotated[list[str] | None, option("names of the models the chain runs on; default: all")] = None
    tasks: Annotated[list[str] | None, option("names of the tasks the chain runs on; default: all")] = None
    strategy: Annotated[
        str, option("strategy of which the chain is a setting; default: its own name, of a sweep that of the sweep")
    ] = ""


class TaskEntry(Parameters):
    """A task of a run, and the settings under which its answers are generated.

    Examples:
        >>> TaskEntry(task="gsm8k", samples=100, parameters={"shots": 4}).sampling
        False
    """

    task: Annotated[str, option("name of a task; default: the name of the entry")]
    samples: Annotated[int | None, whole("number of samples, counted from the first; default: all", ge=1)] = None
    split: Annotated[Split | None, option("split whose items are used; default: all items")] = None
    split_seed: Annotated[int, whole("seed of the split", ge=0)] = 0
    development_share: Annotated[float, number("share of the items that the development split has", gt=0, lt=1)] = 0.5
    data: Annotated[str | None, option("a data file that replaces the task's own")] = None
    encoding: Annotated[str | None, option("encoding of the data file")] = None
    repeats: Annotated[int, whole("answers per sample", ge=1, le=10_000)] = 1
    sampling: Annotated[bool, option("sample tokens instead of decoding greedily")] = False
    max_new_tokens: Annotated[int, whole("largest number of new tokens per answer", ge=1, le=1_000_000)] = 128
    beams: Annotated[int, whole("width of the beam search", ge=1)] = 1
    batch: Annotated[int, whole("samples decoded or scored together", ge=1)] = 1
    models: Annotated[list[str] | None, option("names of the models the task runs on; default: all")] = None
    parameters: Annotated[dict[str, Any], option("parameters of the task itself")] = {}  # noqa: RUF012


class CostEntry(Parameters):
    """How cost is measured: paired rounds in which every chain decodes the same prompts.

    Examples:
        >>> CostEntry(rounds=3).tokens
        32
    """

    rounds: Annotated[int, whole("measured rounds", ge=1, le=1000)] = 5
    tokens: Annotated[int, whole("new tokens per prompt", ge=2, le=1_000_000)] = 32
    batch: Annotated[int, whole("number of prompts", ge=1, le=10_000)] = 1
    memory: Annotated[bool, option("also measure peak memory")] = True


class TunedEntry(Parameters):
    """How the settings of a run were chosen; `logitkit bench choose` writes it.

    Examples:
        >>> TunedEntry(run="0123456789abcdef", tasks={}, settings={"cfg": 3}, comparisons=3).metric
        ''
    """

    run: Annotated[str, option("identity of the run in which the settings were compared")]
    tasks: Annotated[dict[str, TaskEntry], option("tasks by which they were chosen, with their items")]
    settings: Annotated[dict[str, int], option("number of settings that were tried, by strategy")]
    comparisons: Annotated[int, whole("comparisons of that run", ge=0)]
    metric: Annotated[str, option("metric by which they were chosen; default: the main one of each task")] = ""


class HypothesisEntry(Parameters):
    """A difference that is expected before the run.

    Examples:
        >>> HypothesisEntry(chain="cfg", task="words", metric="loss", smallest=0.05).expect
        'better'
    """

    chain: Annotated[str, option("chain that is expected to differ")]
    task: Annotated[str, option("task on which it is compared")]
    expect: Annotated[Literal["better", "worse", "different"], option("expected direction")] = "better"
    metric: Annotated[str, option("metric that is compared; default: the main one of the task")] = ""
    against: Annotated[str, option("chain with which it is compared; default: the baseline")] = ""
    model: Annotated[str, option("model that the hypothesis is about; default: each model of the run")] = ""
    smallest: Annotated[
        float, number("smallest difference of interest; of a perplexity in its logarithm, 0 for none", ge=0)
    ] = 0.0


class Run(Parameters):
    """One run: every chain on every task of every model.

    `logitkit.bench.config.read` makes a run of a YAML file and checks it.

    Attributes:
        folder: where relative paths start; not part of `hash`.

    Examples:
        >>> run = Run(
        ...     models={"small": ModelEntry(name="smollm2-135m")},
        ...     chains={"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)")},
        ...     tasks={"arc": TaskEntry(task="arc", samples=10)},
        ... )
        >>> run.pairs()
        [('small', 'plain', 'arc'), ('small', 'cfg', 'arc')]
        >>> run.compared_with
        'plain'
    """

    models: Annotated[dict[str, ModelEntry], option("models by name")]
    chains: Annotated[dict[str, ChainEntry], option("chains by name")]
    tasks: Annotated[dict[str, TaskEntry], option("tasks by name")]
    resources: Annotated[dict[str, ResourceEntry], option("resources of the chains by name")] = {}  # noqa: RUF012
    seeds: Annotated[list[int], option("seeds of the sampling; each answer is sampled once per seed")] = [0]  # noqa: RUF012
    baseline: Annotated[str, option("name of the chain the others are compared with; default: the first")] = ""
    cost: Annotated[CostEntry | None, option("how cost is measured; left out: cost is not measured")] = None
    correction: Annotated[
        Literal["run", "task"], option("comparisons corrected together: of the whole run, or of one task and metric")
    ] = "run"
    hypotheses: Annotated[list[HypothesisEntry], option("differences that are expected before the run")] = []  # noqa: RUF012
    tuned: Annotated[TunedEntry | None, option("how the settings were chosen; bench choose writes it")] = None
    allow_code_execution: Annotated[bool, option("let tasks execute programs that a model wrote")] = False
    folder: Annotated[str, option("where relative paths start")] = "."

    @property
    def hash(self) -> str:
        """Identity of the run: 16 hex digits of all settings that differ from their defaults.

        Leaving out defaults keeps the hash of old runs when a new setting is added. The strategies of chains are names
        alone, and left out too.
        """
        hidden: Any = {"folder": True, "allow_code_execution": True, "chains": {"__all__": {"strategy"}}}
        return digest(self.model_dump(mode="json", exclude_defaults=True, exclude=hidden))

    @property
    def compared_with(self) -> str:
        """Name of the chain that the others are compared with."""
        return self.baseline or next(iter(self.chains))

    def strategies(self) -> dict[str, list[str]]:
        """Return the names of the chains of each strategy: the settings that were tried of it.

        Examples:
            >>> chains = {"plain": ChainEntry(), "cfg 2": ChainEntry(chain="cfg(2.0)", strategy="cfg")}
            >>> Run(models={}, tasks={}, chains=chains).strategies()
            {'plain': ['plain'], 'cfg': ['cfg 2']}
        """
        strategies: dict[str, list[str]] = {}
        for name, entry in self.chains.items():
            strategies.setdefault(entry.strategy or name, []).append(name)
        return strategies

    def pairs(self) -> list[tuple[str, str, str]]:
        """Return every (model, chain, task) of the run, in the order of the entries."""
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
    """Return 16 hex digits of plain data, independent of the order of its keys.

    Examples:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
