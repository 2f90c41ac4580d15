"""What a chain costs: tokens a second beside plain decoding, in one run, with the floor of its forward passes.

Every round runs each way of decoding once, one after the other, so that a machine that slows down slows
them all; the ratio to plain decoding is taken round by round and its median printed. The floor is the
time spent inside forward passes: what is left is ours to save.

    python -m logitkit.bench.speed --batch 1 --batch 4
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from transformers import LogitsProcessorList

from logitkit import models
from logitkit.registry.chain import Chain

PROMPTS = [
    'def add(a: int, b: int) -> int:\n    """Add two numbers.\n\n    >>> add(1, 2)\n    3\n    """\n',
    'def last(items: list) -> object:\n    """Return the last item.\n\n    >>> last([1, 2])\n    2\n    """\n',
    'def is_prime(n: int) -> bool:\n    """Say whether n is prime.\n\n    >>> is_prime(4)\n    False\n    """\n',
    'def flip(text: str) -> str:\n    """Reverse a text.\n\n    >>> flip("ab")\n    "ba"\n    """\n',
]


@dataclass(eq=False)
class Timing:
    """Rounds of one way of decoding."""

    seconds: list[float] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    note: str = ""


class ForwardClock:
    """Adds up the time spent inside a model's forward passes."""

    def __init__(self, model: Any, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self._begun, self._now = 0.0, 0.0, now
        self._hooks = [model.register_forward_pre_hook(self._start), model.register_forward_hook(self._stop)]

    def _start(self, *_: Any) -> None:
        self._begun = self._now()

    def _stop(self, *_: Any) -> None:
        self.seconds += self._now() - self._begun

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()


def ways(model: Any, tokenizer: Any, prompts: list[str], settings: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Each way of decoding as a function that runs it once and says what there is to say."""

    def chained(text: str) -> str:
        call = Chain(text).bind(model, tokenizer, prompts)
        call.generate(**settings)
        return ", ".join(
            [f"fired on {share:.2f} of rows" for share in call.trace.fired.values()]
            + [f"{name} read at {count / call.trace.calls:.2f} of steps" for name, count in call.trace.forwards.items()]
        )

    inputs = Chain().bind(model, tokenizer, prompts).inputs

    def plain(**more: Any) -> str:
        model.generate(**inputs, **settings, **more)
        return ""

    def identity() -> str:
        call = Chain("uscd(rho=0.0)").bind(model, tokenizer, prompts)
        model.generate(**inputs, **settings, logits_processor=LogitsProcessorList(call.processors))
        return ""

    return {
        "plain generate": plain,
        "identity chain": identity,
        "transformers guidance_scale=1.5": lambda: plain(guidance_scale=1.5),
        "cfg(1.5)": lambda: chained("cfg(1.5)"),
        "uscd()": lambda: chained("uscd()"),
        "uscd(gate=0.626)": lambda: chained("uscd(gate=0.626)"),
        "uscd(gate=1.0)": lambda: chained("uscd(gate=1.0)"),
    }


def measure(model: Any, tokenizer: Any, *, batch: int, tokens: int, rounds: int) -> dict[str, Timing]:
    """Time every way of decoding, round by round."""
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(batch)]
    timings: dict[str, Timing] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        todo = ways(model, tokenizer, prompts, settings)
        task = progress.add_task(f"batch {batch}", total=(rounds + 1) * len(todo))
        for number in range(rounds + 1):  # the first round warms up
            for name, run in todo.items():
                clock = ForwardClock(model)
                begun = time.perf_counter()
                note = run()
                seconds = time.perf_counter() - begun
                clock.remove()
                progress.advance(task)
                if number:
                    timing = timings.setdefault(name, Timing())
                    timing.seconds.append(seconds)
                    timing.forward_seconds.append(clock.seconds)
                    timing.note = note
    return timings


def table(timings: dict[str, Timing], *, batch: int, tokens: int) -> str:
    """The result as Markdown: ratio first."""
    plain = timings["plain generate"].seconds
    lines = [f"| batch {batch} | ratio to plain | tokens/s | floor: forwards alone, tokens/s | share in forwards | |"]
    lines.append("|---|---|---|---|---|---|")
    for name, timing in timings.items():
        ratio = statistics.median(p / s for p, s in zip(plain, timing.seconds, strict=True))
        rate = batch * tokens / statistics.median(timing.seconds)
        floor = batch * tokens / statistics.median(timing.forward_seconds)
        share = statistics.median(f / s for f, s in zip(timing.forward_seconds, timing.seconds, strict=True))
        lines.append(f"| {name} | {ratio:.3f} | {rate:.1f} | {floor:.1f} | {share:.3f} | {timing.note} |")
    return "\n".join(lines)


def main(
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="New tokens a run.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 5,
) -> None:
    """Print the tables."""
    loaded, tokenizer = models.load(model)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {model}, {loaded.dtype}, {rounds} rounds\n")
    for size in batch or [1, 4]:
        print(table(measure(loaded, tokenizer, batch=size, tokens=tokens, rounds=rounds), batch=size, tokens=tokens))
        print()


if __name__ == "__main__":
    typer.run(main)
