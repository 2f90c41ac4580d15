"""Profile of registered processors: their own time per step, without the forward passes that they request.

Every processor is bound as the example of its Spec to a random model with one tiny layer and a wide vocabulary, and
called with rows that grow by one token per step, as `generate` calls it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.syncs import SyncCount
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.examples import example_of
from logitkit.registry.laws.subjects import prompts
from logitkit.registry.laws.tiny_models import tiny_tokenizer, wide_model
from logitkit.registry.spec import Spec

VOCABULARIES = (49_152, 151_936)  # SmolLM2, Qwen2.5
BATCHES = (1, 16)
UNIT = "one log_softmax"  # the reference that other times are divided by


@dataclass(frozen=True, eq=False, kw_only=True)
class ProcessorCost:
    """Cost of one step of a processor, without forwards.

    Attributes:
        seconds: median duration of a step.
        syncs: number of host reads per step; see `SyncCount`.

    Examples:
        >>> ProcessorCost(seconds=0.001, syncs=1).syncs
        1
    """

    seconds: float
    syncs: float


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
        The costs by name, `UNIT` first.

    Examples:
        >>> list(profile_processors(300, 1, steps=1, names=["top_k"]))
        ['one log_softmax', 'top_k', 'the composite around a chain']
    """
    registry = default_registry()
    model, *others = [wide_model(vocab, seed).to(device) for seed in range(3)]
    grown = [rows.to(device) for rows in _rows(batch, steps + 3)]
    scores = [
        torch.randn(batch, vocab, generator=torch.Generator().manual_seed(step)).to(device) * 3 for step in range(4)
    ]
    parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {UNIT: lambda _, scores: scores.log_softmax(-1)}
    for name in names or registry.names():
        parts[name] = _bind_example(registry.describe(name), model, others)
    parts["the composite around a chain"] = Chain().bind(model, tiny_tokenizer(), prompts()).composite
    return {name: _measure(part, grown, scores, [model, *others]) for name, part in parts.items()}


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


def _bind_example(spec: Spec, model: Any, others: list[Any]) -> Any:
    """Return the processor of a Spec's example, bound to the wide models."""
    example = example_of(spec, model=model, another=lambda number: others[number - 1])
    return example.bind(prompts(tokenizer=example.tokenizer)).composite.parts[0][1]


def _rows(batch: int, steps: int) -> list[Tensor]:
    """Return the rows of each step: the prompts, continued by one more random token per step."""
    starts = prompts()["input_ids"]
    rows = starts[:1] if batch == 1 else starts.repeat_interleave(batch // 2, dim=0)
    tail = torch.randint(0, 256, (len(rows), steps), generator=torch.Generator().manual_seed(0))
    return [torch.cat([rows, tail[:, : step + 1]], dim=1) for step in range(steps)]


def table(vocab: int, batch: int, costs: dict[str, ProcessorCost]) -> str:
    """Return the costs as a Markdown table."""
    unit = costs[UNIT].seconds
    lines = [
        f"| vocabulary {vocab}, batch {batch} | ms/step | time / log_softmax | host reads/step |",
        "|---|---|---|---|",
    ]
    for name, cost in costs.items():
        lines.append(f"| {name} | {1000 * cost.seconds:.3f} | {cost.seconds / unit:.1f} | {cost.syncs:g} |")
    return "\n".join(lines)
