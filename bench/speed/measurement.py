"""What a chain costs: tokens a second beside plain decoding, in one run, with the floor of its forward passes.

Every round runs each decoding variant once, one after the other, so that a machine that slows down slows
them all; the ratio to plain decoding is taken round by round and its median printed. The floor is the
ratio that would remain if nothing but the forward passes took time: what lies between is ours to save.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from logitkit.bench.speed.clock import ForwardClock
from logitkit.bench.speed.decoding_variants import PLAIN, DecodingVariant
from logitkit.bench.speed.memory import PeakMemory
from logitkit.processors.byte_level.model import ByteModel

PROMPTS = [
    'def add(a: int, b: int) -> int:\n    """Add two numbers.\n\n    >>> add(1, 2)\n    3\n    """\n',
    'def last(items: list) -> object:\n    """Return the last item.\n\n    >>> last([1, 2])\n    2\n    """\n',
    'def is_prime(n: int) -> bool:\n    """Say whether n is prime.\n\n    >>> is_prime(4)\n    False\n    """\n',
    'def flip(text: str) -> str:\n    """Reverse a text.\n\n    >>> flip("ab")\n    "ba"\n    """\n',
]


@dataclass(eq=False)
class VariantTiming:
    """Rounds of one decoding variant.

    Attributes:
        seconds: of each round.
        forward_seconds: of each round, inside forward passes.
        peak: bytes of tensors alive at once, the model not counted.
        note: what the variant said of itself.
    """

    seconds: list[float] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    peak: int = 0
    note: str = ""


def measure(
    model: Any,
    tokenizer: Any,
    variants: Sequence[DecodingVariant],
    *,
    batch: int,
    tokens: int,
    rounds: int,
    memory: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, VariantTiming]:
    """Time every decoding variant, round by round; the first round warms up and measures memory.

    Args:
        model, tokenizer: what decodes.
        variants: the first is what the others are compared with.
        batch: prompts.
        tokens: new tokens a prompt, no fewer and no more.
        rounds: rounds that count.
        memory: whether to measure the peak, too; slow, since every tensor is watched.
        advance: called after each run, ``(rounds + 1) * len(variants)`` times.
    """
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(batch)]
    timings = {variant.name: VariantTiming() for variant in variants}
    named = {variant.name: variant.make_resources(model, tokenizer) for variant in variants}
    for number in range(rounds + 1):
        for variant in variants:
            run = partial(variant.run, model, tokenizer, prompts, settings, named[variant.name])
            if number:
                _time(timings[variant.name], run, [model, *named[variant.name].values()])
            else:
                run()
                if memory:
                    with PeakMemory() as watch:
                        run()
                    timings[variant.name].peak = watch.peak
            advance()
    return timings


def _time(timing: VariantTiming, run: Callable[[], str], resources: Sequence[Any]) -> None:
    """Add one round, with a clock on every model among these; one over bytes runs another, which has it already."""
    every = dict.fromkeys(thing for thing in resources if hasattr(thing, "register_forward_hook"))
    models = [model for model in every if not isinstance(model, ByteModel)]
    clocks = [ForwardClock(model) for model in models]
    begun = time.perf_counter()
    timing.note = run()
    if torch.device(models[0].device).type == "cuda":
        torch.cuda.synchronize()
    timing.seconds.append(time.perf_counter() - begun)
    timing.forward_seconds.append(sum(clock.seconds for clock in clocks))
    for clock in clocks:
        clock.remove()


def ratio(plain: VariantTiming, timing: VariantTiming) -> float:
    """Median over rounds of the speed beside plain decoding."""
    return statistics.median(p / s for p, s in zip(plain.seconds, timing.seconds, strict=True))


def floor(plain: VariantTiming, timing: VariantTiming) -> float:
    """The same, were nothing but this way's forward passes to take time beyond plain decoding's own."""
    rest = [p - f for p, f in zip(plain.seconds, plain.forward_seconds, strict=True)]
    rounds = zip(plain.seconds, timing.forward_seconds, rest, strict=True)
    return statistics.median(p / (f + r) for p, f, r in rounds)


def table(timings: Mapping[str, VariantTiming], *, batch: int, tokens: int) -> str:
    """The result as Markdown: ratio first."""
    plain = timings[PLAIN.name]
    lines = [
        f"| batch {batch}, {tokens} tokens | ratio to plain | floor | tokens/s | peak beside the model, of plain | |",
        "|---|---|---|---|---|---|",
    ]
    for name, timing in timings.items():
        rate = batch * tokens / statistics.median(timing.seconds)
        peak = f"{timing.peak / plain.peak:.2f}" if plain.peak else ""
        cells = f"{ratio(plain, timing):.3f} | {floor(plain, timing):.3f} | {rate:.1f} | {peak}"
        lines.append(f"| {name} | {cells} | {timing.note} |")
    return "\n".join(lines)
