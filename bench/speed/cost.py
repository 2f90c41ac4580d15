"""Costs of the strategies of a run: paired rounds in which every strategy decodes the same prompts.

The ratio to the baseline is taken within a round, so a slower machine in a later round does not change the ratio. The
median over rounds is reported. Rounds are stored like other results, so an interrupted measurement resumes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run, digest
from logitkit.bench.execution.sampling import pinned_settings
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.measurement import PROMPTS
from logitkit.bench.speed.memory import PeakMemory
from logitkit.registry.bind import bind
from logitkit.registry.chain import Chain

MODEL = "model"  # name of the generating model among the models of a strategy


@dataclass(frozen=True, kw_only=True)
class StrategyCost:
    """Cost of a strategy relative to the baseline, greedy, on the same prompts.

    Attributes:
        ratio: time divided by the baseline's time, median of the rounds.
        low, high: smallest and largest ratio of a round.
        milliseconds: time per token, median of the rounds.
        forwards: forward passes per step, by model. A fused second prompt adds none.
        peak: peak memory of tensors divided by the baseline's, models not included; None if it was not measured.
        rounds: number of timed rounds.

    Examples:
        >>> cost = StrategyCost(
        ...     ratio=1.2, low=1.1, high=1.3, milliseconds=8.0, forwards={"model": 1.0}, peak=None, rounds=5
        ... )
        >>> cost.low <= cost.ratio <= cost.high
        True
    """

    ratio: float
    low: float
    high: float
    milliseconds: float
    forwards: dict[str, float]
    peak: float | None
    rounds: int


def strategies(run: Run, model: str) -> list[str]:
    """Return the names of the chains that a run uses with a model, the baseline first."""
    named = {chain for owner, chain, _ in run.pairs() if owner == model}
    return sorted((name for name in run.chains if name in named), key=lambda name: name != run.compared_with)


def round_keys(run: Run, model: str) -> list[str]:
    """Return the keys of a model's rounds; the round that measures memory, if there is one, comes first."""
    assert run.cost is not None
    metadata = {
        "model": run.models[model].model_dump(mode="json", exclude_defaults=True),
        "resources": {name: loading.resource_metadata(run, name) for name in run.resources},
        "chains": {name: Chain(run.chains[name].chain).hash for name in strategies(run, model)},
        "cost": run.cost.model_dump(mode="json", exclude={"rounds", "memory"}),
    }
    rounds = ["memory"] * run.cost.memory + list(range(run.cost.rounds))
    return [digest({**metadata, "round": number}) for number in rounds]


def missing(run: Run, store: Store) -> list[tuple[str, str]]:
    """Return (model, key) of the rounds that the store lacks."""
    if run.cost is None:
        return []
    rounds = [(model, key) for model in run.models if strategies(run, model) for key in round_keys(run, model)]
    return [(model, key) for model, key in rounds if key not in store.records]


def carry_out(run: Run, store: Store, *, advance: Callable[[str], None] = lambda model: None) -> None:
    """Measure the missing rounds and store each as soon as it is complete.

    Args:
        run: the run.
        store: the store, open for writing.
        advance: called with the model's name after each round.
    """
    warm: set[str] = set()
    for model, key in missing(run, store):
        subject, tokenizer = loading.model_and_tokenizer(run, model)
        with pinned_settings(subject):
            if model not in warm:
                for name in strategies(run, model):  # builds tables, alignments and compiled code before timing
                    _decode(run, model, name, subject, tokenizer, tokens=2)
                warm.add(model)
            of_memory = run.cost is not None and run.cost.memory and key == round_keys(run, model)[0]
            measure = _memory if of_memory else _time
            chains = {name: measure(run, model, name, subject, tokenizer) for name in strategies(run, model)}
        what = "memory" if of_memory else "time"
        revisions = {name: loading.chain_revisions(Chain(run.chains[name].chain)) for name in chains}
        store.add(
            [{"key": key, "kind": "cost", "model": model, "what": what, "chains": chains, "revisions": revisions}]
        )
        advance(model)


def costs(run: Run, store: Store, model: str) -> dict[str, StrategyCost]:
    """Return the cost of each strategy of a model, from the stored rounds; empty without any."""
    if run.cost is None or not strategies(run, model):
        return {}
    records = [store.records[key] for key in round_keys(run, model) if key in store.records]
    rounds = [record["chains"] for record in records if record["what"] == "time"]
    peaks = next((record["chains"] for record in records if record["what"] == "memory"), None)
    return {name: cost_of(run, name, rounds, peaks) for name in strategies(run, model)} if rounds else {}


def cost_of(
    run: Run, name: str, rounds: Sequence[Mapping[str, Record]], peaks: Mapping[str, Any] | None
) -> StrategyCost:
    """Return the cost of one strategy.

    Args:
        run: the run.
        name: name of the strategy.
        rounds: for each timed round the measurements by strategy.
        peaks: peak memory by strategy; None if it was not measured.
    """
    ratios = [chains[name]["seconds"] / chains[run.compared_with]["seconds"] for chains in rounds]
    peak = None if peaks is None else peaks[name]["peak"] / max(1, peaks[run.compared_with]["peak"])
    return StrategyCost(
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        milliseconds=statistics.median(1000 * chains[name]["seconds"] / chains[name]["tokens"] for chains in rounds),
        forwards={which: count / rounds[0][name]["steps"] for which, count in rounds[0][name]["forwards"].items()},
        peak=peak,
        rounds=len(rounds),
    )


def _time(run: Run, model: str, name: str, subject: Any, tokenizer: Any) -> Record:
    """Decode once, with a clock on every model."""
    resources, _ = loading.chain_resources(run, model, Chain(run.chains[name].chain))
    models = {MODEL: subject} | {key: value for key, value in resources.items() if value is not subject}
    clocks = {key: ForwardClock(value) for key, value in models.items() if hasattr(value, "register_forward_pre_hook")}
    begun = time.perf_counter()
    steps, tokens = _decode(run, model, name, subject, tokenizer)
    seconds = time.perf_counter() - begun
    record = {
        "seconds": round(seconds, 5),
        "forward_seconds": round(sum(clock.seconds for clock in clocks.values()), 5),
        "forwards": {key: clock.count for key, clock in clocks.items()},
        "steps": steps,
        "tokens": tokens,
    }
    for clock in clocks.values():
        clock.remove()
    return record


def _memory(run: Run, model: str, name: str, subject: Any, tokenizer: Any) -> Record:
    """Decode once and measure peak memory."""
    with PeakMemory() as memory:
        _decode(run, model, name, subject, tokenizer)
    return {"peak": memory.peak}


def _decode(
    run: Run, model: str, name: str, subject: Any, tokenizer: Any, *, tokens: int | None = None
) -> tuple[int, int]:
    """Bind a chain and decode greedily, without ending at end tokens; return the number of steps and of new tokens."""
    assert run.cost is not None
    chain, tokens = Chain(run.chains[name].chain), tokens or run.cost.tokens
    resources, tokenizers = loading.chain_resources(run, model, chain)
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(run.cost.batch)]
    call = bind(chain, subject, tokenizer, prompts, trace=False, tokenizers=tokenizers, resources=resources, warn=False)
    greedy: dict[str, Any] = {} if chain.searches else {"do_sample": False}  # a search draws its own tokens
    output = call.ids(call.generate(max_new_tokens=tokens, min_new_tokens=tokens, **greedy))
    steps = output.shape[1] - call.prompts.width
    return steps, steps * len(prompts)
