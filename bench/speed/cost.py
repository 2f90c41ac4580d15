"""What strategies cost: rounds in which each decodes the same prompts, one after the other.

A round's ratio to the baseline is taken within the round, so a machine that slows down changes no ratio; the
median over rounds is reported. Rounds are kept like other results, and a run that is stopped goes on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.bench.config import loading
from logitkit.bench.config.run import Run, digest
from logitkit.bench.execution.sampling import pinned_settings
from logitkit.bench.execution.store import Record, Store
from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.measurement import PROMPTS
from logitkit.bench.speed.memory import PeakMemory
from logitkit.registry.chain import Chain

MODEL = "model"  # what the generating model is called among the models of a strategy


@dataclass(frozen=True, kw_only=True)
class StrategyCost:
    """What a strategy costs beside the baseline, greedy, on the same prompts.

    Attributes:
        ratio: time of the baseline's time, median of rounds.
        low, high: the least and the largest ratio of a round.
        milliseconds: a token, median of rounds.
        forwards: forward passes a token, by model. A second prompt that rides in the model's own is not one more.
        peak: of tensors beside the models, of the baseline's; None: not measured.
        rounds: how many count.
    """

    ratio: float
    low: float
    high: float
    milliseconds: float
    forwards: dict[str, float]
    peak: float | None
    rounds: int


def strategies(run: Run, model: str) -> list[str]:
    """Chains that a run uses with a model, the baseline first."""
    named = {chain for owner, chain, _ in run.pairs() if owner == model}
    return sorted((name for name in run.chains if name in named), key=lambda name: name != run.compared_with)


def round_keys(run: Run, model: str) -> list[str]:
    """Keys of the rounds of a model, the one that measures memory first if there is one."""
    assert run.cost is not None
    told = {
        "model": run.models[model].model_dump(mode="json", exclude_defaults=True),
        "resources": {name: loading.resource_metadata(run, name) for name in run.resources},
        "chains": {name: Chain(run.chains[name].chain).hash for name in strategies(run, model)},
        "cost": run.cost.model_dump(mode="json", exclude={"rounds", "memory"}),
    }
    rounds = ["memory"] * run.cost.memory + list(range(run.cost.rounds))
    return [digest({**told, "round": number}) for number in rounds]


def missing(run: Run, store: Store) -> list[tuple[str, str]]:
    """(model, key) of rounds that are not there."""
    if run.cost is None:
        return []
    every = [(model, key) for model in run.models if strategies(run, model) for key in round_keys(run, model)]
    return [(model, key) for model, key in every if key not in store.records]


def carry_out(run: Run, store: Store, *, advance: Callable[[str], None] = lambda model: None) -> None:
    """Measure the rounds that are missing and write each down as it is done."""
    warm: set[str] = set()
    for model, key in missing(run, store):
        subject, tokenizer = loading.model_and_tokenizer(run, model)
        with pinned_settings(subject):
            if model not in warm:
                for name in strategies(run, model):  # tables, alignments and compiled code are made beforehand
                    _decode(run, model, name, subject, tokenizer, tokens=2)
                warm.add(model)
            whole = run.cost is not None and run.cost.memory and key == round_keys(run, model)[0]
            measure = _memory if whole else _time
            told = {name: measure(run, model, name, subject, tokenizer) for name in strategies(run, model)}
        store.add([{"key": key, "kind": "cost", "model": model, "what": "memory" if whole else "time", "chains": told}])
        advance(model)


def costs(run: Run, store: Store, model: str) -> dict[str, StrategyCost]:
    """What each strategy of a model costs, from the rounds that are there; empty without any."""
    if run.cost is None or not strategies(run, model):
        return {}
    records = [store.records[key] for key in round_keys(run, model) if key in store.records]
    rounds = [record["chains"] for record in records if record["what"] == "time"]
    peaks = next((record["chains"] for record in records if record["what"] == "memory"), None)
    return {name: _cost(run, name, rounds, peaks) for name in strategies(run, model)} if rounds else {}


def _cost(run: Run, name: str, rounds: Sequence[Mapping[str, Record]], peaks: Mapping[str, Any] | None) -> StrategyCost:
    ratios = [one[name]["seconds"] / one[run.compared_with]["seconds"] for one in rounds]
    tokens = [one[name]["tokens"] for one in rounds]
    peak = None if peaks is None else peaks[name]["peak"] / max(1, peaks[run.compared_with]["peak"])
    return StrategyCost(
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        milliseconds=statistics.median(
            1000 * one[name]["seconds"] / count for one, count in zip(rounds, tokens, strict=True)
        ),
        forwards={which: count / rounds[0][name]["steps"] for which, count in rounds[0][name]["forwards"].items()},
        peak=peak,
        rounds=len(rounds),
    )


def _time(run: Run, model: str, name: str, subject: Any, tokenizer: Any) -> Record:
    """Decode once with a clock on every model."""
    resources, _ = loading.chain_resources(run, model, Chain(run.chains[name].chain))
    models = {MODEL: subject} | {key: value for key, value in resources.items() if value is not subject}
    clocks = {key: ForwardClock(value) for key, value in models.items() if hasattr(value, "register_forward_pre_hook")}
    begun = time.perf_counter()
    steps, tokens = _decode(run, model, name, subject, tokenizer)
    seconds = time.perf_counter() - begun
    told = {
        "seconds": round(seconds, 5),
        "forward_seconds": round(sum(clock.seconds for clock in clocks.values()), 5),
        "forwards": {key: clock.count for key, clock in clocks.items()},
        "steps": steps,
        "tokens": tokens,
    }
    for clock in clocks.values():
        clock.remove()
    return told


def _memory(run: Run, model: str, name: str, subject: Any, tokenizer: Any) -> Record:
    with PeakMemory() as memory:
        _decode(run, model, name, subject, tokenizer)
    return {"peak": memory.peak}


def _decode(
    run: Run, model: str, name: str, subject: Any, tokenizer: Any, *, tokens: int | None = None
) -> tuple[int, int]:
    """Bind and decode greedily, no more and no fewer tokens than asked for; steps and tokens made."""
    assert run.cost is not None
    chain, tokens = Chain(run.chains[name].chain), tokens or run.cost.tokens
    resources, tokenizers = loading.chain_resources(run, model, chain)
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(run.cost.batch)]
    call = chain.bind(subject, tokenizer, prompts, tokenizers=tokenizers, **resources)
    output = call.ids(call.generate(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False))
    steps = output.shape[1] - call.prompts.width
    return steps, steps * len(prompts)


def front(points: Sequence[tuple[float, float]]) -> Iterator[bool]:
    """For each (cost, quality), whether nothing else is as cheap and better, or as good and cheaper."""
    for cost, quality in points:
        yield not any(
            (other <= cost and good > quality) or (other < cost and good >= quality) for other, good in points
        )
