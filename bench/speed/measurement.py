"""Speed of decoding variants relative to plain decoding, with the floor that their forward passes set.

Every round runs each variant once, one after the other, so that a machine that slows down slows all variants. The
ratio to plain decoding is taken within each round, and its median is reported. The floor is the ratio that would
remain if the variant took no time outside forward passes beyond that of plain decoding. The difference between ratio
and floor is the overhead of the implementation.
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
from logitkit.bench.speed.decoding_variants import DecodingVariant
from logitkit.bench.speed.memory import PeakMemory
from logitkit.errors import ModeError, ParameterError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.model_facts import context_length

PROMPTS = [
    'def add(a: int, b: int) -> int:\n    """Add two numbers.\n\n    >>> add(1, 2)\n    3\n    """\n',
    'def last(items: list) -> object:\n    """Return the last item.\n\n    >>> last([1, 2])\n    2\n    """\n',
    'def is_prime(n: int) -> bool:\n    """Say whether n is prime.\n\n    >>> is_prime(4)\n    False\n    """\n',
    'def flip(text: str) -> str:\n    """Reverse a text.\n\n    >>> flip("ab")\n    "ba"\n    """\n',
]


@dataclass(eq=False)
class VariantTiming:
    """Timings of one decoding variant.

    Attributes:
        seconds: duration of each round.
        forward_seconds: time inside forward passes in each round; empty for a compiled variant.
        peak: peak memory of tensors in bytes, without the model; 0 if it was not measured.
        note: the note that the variant's last run returned.
        error: why the variant could not be measured; empty if it was.
        refused: the error is a refusal by name of the way in which the variant decodes.

    Examples:
        >>> plain, variant = VariantTiming([10.0], [8.0]), VariantTiming([20.0], [14.0])
        >>> ratio(plain, variant), floor(plain, variant)
        (0.5, 0.625)
    """

    seconds: list[float] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    peak: int = 0
    note: str = ""
    error: str = ""
    refused: bool = False


# Over 40 lines: the arguments are documented one by one.
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
    """Time every decoding variant, round by round. The first round warms up, compiles, and measures memory.

    A variant that raises an error in the first round is left out of the others, and its timing holds the error.

    Args:
        model, tokenizer: the generating model and its tokenizer.
        variants: the variants; the others are compared with the first.
        batch: number of prompts.
        tokens: number of new tokens per prompt; end tokens are suppressed.
        rounds: number of timed rounds.
        memory: also measure peak memory; slow, since every tensor is tracked. Compiled variants are left out.
        advance: called after each run, ``(rounds + 1) * len(variants)`` times.

    Returns:
        The timings by the variant's name.

    Raises:
        Exception: the first variant raises it.

    Examples:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> from logitkit.bench.speed.decoding_variants import PLAIN
        >>> timings = measure(tiny_model(), tiny_tokenizer(), [PLAIN], batch=1, tokens=2, rounds=1, memory=False)
        >>> list(timings), len(timings["plain generate"].seconds)
        (['plain generate'], 1)
    """
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(batch)]
    made: dict[Any, Mapping[str, Any]] = {}  # resources by the function that makes them; a static form has the same
    runs: dict[str, Callable[[], str]] = {}
    timings = {variant.name: VariantTiming() for variant in variants}
    for variant in variants:
        timing = timings[variant.name]
        try:
            if variant.resources not in made:
                made[variant.resources] = variant.make_resources(model, tokenizer)
            run = partial(variant.run, model, tokenizer, prompts, settings, made[variant.resources])
            timing.note = run()
            timing.peak = _peak(run) if memory and not variant.compiled else 0
            runs[variant.name] = run
        except Exception as error:  # a variant may be of a plugin, whose errors are of any kind
            if variant is variants[0]:
                raise
            timing.error = one_line(error)
            timing.refused = isinstance(error, ModeError)
        advance()
    for _ in range(rounds):
        for variant in variants:
            if variant.name in runs:
                clocked = [] if variant.compiled else [model, *made[variant.resources].values()]
                _time(timings[variant.name], runs[variant.name], model.device, clocked)
            advance()
    return timings


def check_room(owner: str, parameter: str, model: Any, tokenizer: Any, tokens: int) -> None:
    """Refuse a number of new tokens that does not fit the context of a model after the longest prompt of `PROMPTS`.

    Raises:
        ParameterError: it does not fit.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> check_room("bench speed", "--tokens", tiny_model(), tiny_tokenizer(), 300)
    """
    context, read = context_length(model), max(len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS)
    if context is not None and read + tokens > context:
        rule = f"at most {context - read}, since the model reads {context} tokens and a prompt has {read}"
        raise ParameterError(owner, parameter, rule, tokens)


def one_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message.

    >>> one_line(ValueError("first"))
    'ValueError: first'
    """
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _peak(run: Callable[[], str]) -> int:
    """Return the peak memory of a run in bytes."""
    with PeakMemory() as watch:
        run()
    return int(watch.peak)


def _time(timing: VariantTiming, run: Callable[[], str], device: Any, clocked: Sequence[Any]) -> None:
    """Time one round, with a clock on every model among the objects ``clocked``.

    A `ByteModel` is skipped: it calls the forward of the model that it wraps, which has a clock already.
    """
    modules = dict.fromkeys(resource for resource in clocked if hasattr(resource, "register_forward_hook"))
    clocks = [ForwardClock(model) for model in modules if not isinstance(model, ByteModel)]
    begun = time.perf_counter()
    timing.note = run()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    timing.seconds.append(time.perf_counter() - begun)
    if clocks:
        timing.forward_seconds.append(sum(clock.seconds for clock in clocks))
    for clock in clocks:
        clock.remove()


def ratio(plain: VariantTiming, timing: VariantTiming) -> float:
    """Return the speed of a variant divided by that of plain decoding, the median over rounds."""
    return statistics.median(p / s for p, s in zip(plain.seconds, timing.seconds, strict=True))


def floor(plain: VariantTiming, timing: VariantTiming) -> float:
    """Return the ratio that would remain if all time beyond plain decoding's own overhead were forward passes."""
    outside = [p - f for p, f in zip(plain.seconds, plain.forward_seconds, strict=True)]
    rounds = zip(plain.seconds, timing.forward_seconds, outside, strict=True)
    return statistics.median(p / (f + o) for p, f, o in rounds)
