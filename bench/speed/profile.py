"""What every registered processor itself takes, step by step, with the forward passes that it asks for taken off.

Each is bound as its Spec's example says to a random model of one tiny layer and a wide vocabulary, and asked
about rows that grow by one token a step, as `generate` does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.syncs import SyncCount
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.examples import example_of
from logitkit.registry.laws.subjects import prompts
from logitkit.registry.laws.tiny_models import tiny_tokenizer
from logitkit.registry.spec import Spec

VOCABULARIES = (49_152, 151_936)  # SmolLM2, Qwen2.5
BATCHES = (1, 16)
UNIT = "one log_softmax"


@dataclass(frozen=True, eq=False, kw_only=True)
class ProcessorCost:
    """What one processor takes a step, apart from forwards.

    Attributes:
        seconds: median of a step.
        syncs: times a step that the host waits for the device.
    """

    seconds: float
    syncs: float


def profile(
    vocab: int, batch: int, *, steps: int = 20, names: Iterable[str] = (), device: str = "cpu"
) -> dict[str, ProcessorCost]:
    """Cost of each registered processor at one vocabulary and batch size, `UNIT` first as a measure.

    Args:
        vocab: width of the scores.
        batch: rows.
        steps: steps that count.
        names: processors; all by default.
        device: where scores and models are.
    """
    registry = default_registry()
    models = {name: _model(vocab, seed).to(device) for seed, name in enumerate(("own", "other", "third"))}
    grown = [rows.to(device) for rows in _rows(batch, steps + 3)]
    scores = [
        torch.randn(batch, vocab, generator=torch.Generator().manual_seed(step)).to(device) * 3 for step in range(4)
    ]
    parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {UNIT: lambda _, scores: scores.log_softmax(-1)}
    for name in names or registry.names():
        parts[name] = _bound(registry.describe(name), models)
    parts["the composite around a chain"] = Chain().bind(models["own"], tiny_tokenizer(), prompts()).composite
    return {name: _cost(part, grown, scores, models.values()) for name, part in parts.items()}


def _cost(
    part: Callable[[Tensor, Tensor], Tensor], grown: list[Tensor], scores: list[Tensor], models: Any
) -> ProcessorCost:
    """Time one processor over rows that grow."""
    clocks = [ForwardClock(model) for model in models]
    took = []
    with torch.no_grad():
        for step, rows in enumerate(grown):
            before = sum(clock.seconds for clock in clocks)  # waits for the device, as the next one does
            begun = time.perf_counter()
            part(rows, scores[step % len(scores)])
            inside = sum(clock.seconds for clock in clocks) - before
            took.append(time.perf_counter() - begun - inside)
        for clock in clocks:
            clock.remove()
        longer = torch.cat([grown[-1], grown[-1][:, -1:]], dim=1)
        with SyncCount() as count:
            part(longer, scores[0])
    return ProcessorCost(seconds=statistics.median(took[3:]), syncs=count.total)


def _bound(spec: Spec, models: dict[str, Any]) -> Any:
    """The example of a Spec, bound to the wide models."""
    others = [model for name, model in models.items() if name != "own"]
    example = example_of(spec, model=models["own"], another=lambda number: others[number - 1])
    return example.bind(prompts(tokenizer=example.tokenizer)).composite.parts[0][1]


def _rows(batch: int, steps: int) -> list[Tensor]:
    """Rows that continue the two prompts, one token longer each."""
    starts = prompts()["input_ids"]
    rows = starts[:1] if batch == 1 else starts.repeat_interleave(batch // 2, dim=0)
    tail = torch.randint(0, 256, (len(rows), steps), generator=torch.Generator().manual_seed(0))
    return [torch.cat([rows, tail[:, : step + 1]], dim=1) for step in range(steps)]


def _model(vocab: int, seed: int) -> Any:
    """One tiny layer under a wide vocabulary."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocab,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            initializer_range=0.3,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return LlamaForCausalLM(config).eval()


def table(vocab: int, batch: int, costs: dict[str, ProcessorCost]) -> str:
    """The result as Markdown."""
    unit = costs[UNIT].seconds
    lines = [
        f"| vocabulary {vocab}, batch {batch} | ms a step | in log_softmax | host reads a step |",
        "|---|---|---|---|",
    ]
    for name, cost in costs.items():
        lines.append(f"| {name} | {1000 * cost.seconds:.3f} | {cost.seconds / unit:.1f} | {cost.syncs:g} |")
    return "\n".join(lines)
