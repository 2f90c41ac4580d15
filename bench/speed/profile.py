"""Profile of registered processors: their own time per step, without the forward passes that they request.

Every processor is bound as the example of its Spec to a random model with two tiny layers and a wide vocabulary, and
called with rows that grow by one token per step, as `generate` calls it.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.measurement import one_line
from logitkit.bench.speed.syncs import SyncCount
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.examples import example_of
from logitkit.registry.laws.subjects import prompts
from logitkit.registry.laws.tiny_models import foreign_tokenizer, tiny_tokenizer, wide_model
from logitkit.registry.spec import Spec

VOCABULARIES = (49_152, 151_936)  # SmolLM2, Qwen2.5
BATCHES = (1, 16)
UNIT = "one log_softmax"  # the reference that other times are divided by
COMPOSITE = "the composite around a chain"


@dataclass(frozen=True, eq=False, kw_only=True)
class ProcessorCost:
    """Cost of one step of a processor, without forwards.

    Attributes:
        seconds: median duration of a step.
        syncs: number of host reads per step; see `SyncCount`.
        vocab: number of columns of the scores, where it is not that of the table: a byte model has its own.
        error: why the processor could not be measured; empty if it was.

    Examples:
        >>> ProcessorCost(seconds=0.001, syncs=1).syncs
        1
    """

    seconds: float
    syncs: float
    vocab: int | None = None
    error: str = ""


def profile_processors(
    vocab: int, batch: int, *, steps: int = 20, names: Iterable[str] = (), device: str = "cpu"
) -> dict[str, ProcessorCost]:
    """Measure processors at one vocabulary and batch size.

    Args:
        vocab: number of columns of the scores.
        batch: number of rows; 1 or an even number.
        steps: number of timed steps.
        names: processors; default: all registered ones.
        device: torch device of scores and models.

    Returns:
        The costs by name, `UNIT` first. A processor that raises an error has no cost but the error.

    Examples:
        >>> list(profile_processors(300, 1, steps=1, names=["top_k"]))
        ['one log_softmax', 'top_k', 'the composite around a chain']
    """
    registry = default_registry()
    model, *others = [wide_model(vocab, seed).to(device) for seed in range(3)]
    tiny = tiny_tokenizer()
    parts: dict[str, Callable[[], _Bound]] = {UNIT: lambda: _Bound(lambda _, scores: scores.log_softmax(-1), tiny)}
    for name in names or registry.names():
        parts[name] = partial(_bind_example, registry.describe(name), model, others)
    parts[COMPOSITE] = lambda: _Bound(Chain().bind(model, tiny, prompts()).composite, tiny)
    costs = {}
    for name, bind in parts.items():
        try:
            part, tokenizer, width = bind()
            rows = [each.to(device) for each in _rows(batch, steps + 3, tokenizer)]
            measured = _measure(part, rows, _scores(batch, width or vocab, device), [model, *others])
            costs[name] = dataclasses.replace(measured, vocab=width)
        except Exception as error:  # a processor may be of a plugin, whose errors are of any kind
            if name in (UNIT, COMPOSITE):
                raise
            costs[name] = ProcessorCost(seconds=0.0, syncs=0, error=one_line(error))
    return costs


class _Bound(NamedTuple):
    """A processor that is bound to prompts.

    Attributes:
        part: the processor.
        tokenizer: tokenizer of the prompts.
        width: number of columns of the scores, where it is not that of the table.
    """

    part: Callable[[Tensor, Tensor], Tensor]
    tokenizer: Any
    width: int | None = None


def _scores(batch: int, vocab: int, device: str) -> list[Tensor]:
    """Return random scores of four steps, each ``[batch, vocab]``."""
    seeds = [torch.Generator().manual_seed(step) for step in range(4)]
    return [torch.randn(batch, vocab, generator=seed).to(device) * 3 for seed in seeds]


def _measure(
    part: Callable[[Tensor, Tensor], Tensor], grown: list[Tensor], scores: list[Tensor], models: Any
) -> ProcessorCost:
    """Time one processor on rows that grow by one token per step."""
    clocks = [ForwardClock(model) for model in models]
    durations = []
    with torch.no_grad():
        for step, rows in enumerate(grown):
            before = sum(clock.seconds for clock in clocks)  # on CUDA, reading a clock waits for the device
            begun = time.perf_counter()
            part(rows, scores[step % len(scores)])
            inside = sum(clock.seconds for clock in clocks) - before
            durations.append(time.perf_counter() - begun - inside)
        for clock in clocks:
            clock.remove()
        longer = torch.cat([grown[-1], grown[-1][:, -1:]], dim=1)
        with SyncCount() as count:
            part(longer, scores[0])
    return ProcessorCost(seconds=statistics.median(durations[3:]), syncs=count.total)


def _bind_example(spec: Spec, model: Any, others: list[Any]) -> _Bound:
    """Return the processor of a Spec's example, bound to the wide models."""
    # With one token for each byte, such a processor would read no second stream.
    tokenizer = foreign_tokenizer() if spec.merged_tokens and spec.extra_forwards != "none" else None
    example = example_of(spec, model=model, tokenizer=tokenizer, another=lambda number: others[number - 1])
    part = example.bind(prompts(tokenizer=example.tokenizer)).composite.parts[0][1]
    return _Bound(part, example.tokenizer, None if example.model is model else int(example.model.config.vocab_size))


def _rows(batch: int, steps: int, tokenizer: Any) -> list[Tensor]:
    """Return the rows of each step: the prompts, continued by one more random token per step."""
    starts = prompts(tokenizer=tokenizer)["input_ids"]
    rows = starts[:1] if batch == 1 else starts.repeat_interleave(batch // 2, dim=0)
    tail = torch.randint(0, 256, (len(rows), steps), generator=torch.Generator().manual_seed(0))
    return [torch.cat([rows, tail[:, : step + 1]], dim=1) for step in range(steps)]
