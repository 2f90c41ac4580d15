"""What a cascade costs beside its models alone, in one run, and whether the speculative form beats the large one.

Every round runs each way of decoding once, one after the other; ratios are taken round by round and their
median printed. The floor of a cascade that asks the large model at a share r of the steps is a small step
plus r large steps. A lazy stream reads every token once all the same, in chunks: where a chunk costs more than
a step (few cores, no accelerator), the time inside forward passes, printed beside it, is the honest floor.

    python -m studies.cascade_speed SMALL LARGE --tokens 48
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

from logitkit import models
from logitkit.processors.cascade import SpeculativeCascade
from logitkit.processors.engine.trace import Trace
from logitkit.registry.chain import Chain

PROMPT = "Once upon a time there was a little girl named Lily. She had a small boat and wanted to"
Run = Callable[[], tuple[Any, float, str]]  # ids, share of steps at which the large model was asked, a note
Way = Callable[[], Run]  # binds anew, untimed: a bound chain keeps what it has read


@dataclass(eq=False)
class Timing:
    """Rounds of one way of decoding."""

    seconds: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    asked: float = 0.0
    note: str = ""


class Clock:
    """Adds up the time inside the forward passes of both models. A context manager."""

    def __init__(self, *loaded: Any) -> None:
        self.models, self.seconds = loaded, 0.0

    def __enter__(self) -> Clock:
        self.hooks = [
            hook
            for model in self.models
            for hook in (model.register_forward_pre_hook(self._start), model.register_forward_hook(self._stop))
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._begun


def ways(
    small: Any, large: Any, tokenizer: Any, prompt: str, *, tokens: int, alphas: list[float], drafts: list[int]
) -> dict[str, Way]:
    """Each way of decoding as a function that makes a run of it."""
    settings: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    inputs = Chain().bind(small, tokenizer, prompt).inputs

    def alone(model: Any) -> Way:
        return lambda: lambda: (model.generate(**inputs, **settings), 0.0, "")

    def cascade(alpha: float) -> Way:
        def prepare() -> Run:
            text = f"cascade(large='big', rule='chow', alpha={alpha}, temperature=0.0)"
            call = Chain(text).bind(small, tokenizer, prompt, big=large, tokenizers={"big": tokenizer})

            def run() -> tuple[Any, float, str]:
                ids = call.generate(**settings)
                return ids, call.trace.means["cascade"]["large needed"], f"{call.trace.forwards['big']} large forwards"

            return run

        return prepare

    def speculative(draft: int, alpha: float) -> Way:
        def run() -> tuple[Any, float, str]:
            trace = Trace()
            way = SpeculativeCascade(large=large, rule="token_v3", alpha=alpha, draft_length=draft, trace=trace)
            ids = small.generate(**inputs, custom_generate=way, **settings)
            accepted = trace.means["speculative"]["accepted"]
            return ids, 0.0, f"{trace.forwards['large']} large forwards, {accepted:.2f} of drafts accepted"

        return lambda: run

    found = {"small alone": alone(small), "large alone": alone(large)}
    found |= {f"cascade chow {alpha:g}": cascade(alpha) for alpha in alphas}
    found |= {f"speculative token_v3 0, draft {draft}": speculative(draft, 0.0) for draft in drafts}
    return found | {f"speculative token_v3 0.3, draft {drafts[0]}": speculative(drafts[0], 0.3)}


def measure(small: Any, large: Any, todo: dict[str, Way], rounds: int) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Time every way, round by round; the timings and what each wrote."""
    timings = {name: Timing() for name in todo}
    written: dict[str, Any] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rounds", total=(rounds + 1) * len(todo))
        for number in range(rounds + 1):  # the first round warms up
            for name, prepare in todo.items():
                run = prepare()
                with Clock(small, large) as clock:
                    begun = time.perf_counter()
                    written[name], timings[name].asked, timings[name].note = run()
                    seconds = time.perf_counter() - begun
                progress.advance(task)
                if number:
                    timings[name].seconds.append(seconds)
                    timings[name].inside.append(clock.seconds)
    return timings, written


def table(timings: dict[str, Timing], tokens: int) -> str:
    """The result as Markdown."""
    small, large = timings["small alone"].seconds, timings["large alone"].seconds
    lines = ["| | tokens/s | to the large model alone | to small + r large | share in forwards | |"]
    lines.append("|---|---|---|---|---|---|")
    for name, timing in timings.items():
        rate = tokens / statistics.median(timing.seconds)
        faster = statistics.median(b / s for b, s in zip(large, timing.seconds, strict=True))
        floors = [a + timing.asked * b for a, b in zip(small, large, strict=True)]
        cost = statistics.median(s / f for s, f in zip(timing.seconds, floors, strict=True))
        share = statistics.median(i / s for i, s in zip(timing.inside, timing.seconds, strict=True))
        told = f"r = {timing.asked:.2f}, {cost:.3f}" if name.startswith("cascade") else ""
        lines.append(f"| {name} | {rate:.1f} | x {faster:.2f} | {told} | {share:.3f} | {timing.note} |")
    return "\n".join(lines)


def main(
    small: Annotated[str, typer.Argument(help="The small model: a known name, a folder, or a hub id.")],
    large: Annotated[str, typer.Argument(help="The large model, with the same tokenizer.")],
    prompt: Annotated[str, typer.Option(help="What is continued.")] = PROMPT,
    tokens: Annotated[int, typer.Option(min=2, help="New tokens a run.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 3,
    alpha: Annotated[list[float] | None, typer.Option(help="Of rule chow.")] = None,
    draft: Annotated[list[int] | None, typer.Option(help="Drafted tokens of the speculative form.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the large model.")] = "bfloat16",
) -> None:
    """Print the table."""
    first, tokenizer = models.load(small)
    second = models.load(large)[0].to(getattr(torch, dtype))
    chosen: dict[str, Any] = {"tokens": tokens, "alphas": alpha or [0.2, 0.5, 0.8], "drafts": draft or [2, 4]}
    todo = ways(first, second, tokenizer, prompt, **chosen)
    timings, written = measure(first, second, todo, rounds)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {small} to {large} in {dtype}, {rounds} rounds\n")
    print(table(timings, tokens))
    lossless = [torch.equal(ids, written["large alone"]) for name, ids in written.items() if "token_v3 0," in name]
    print(f"\nThe speculative text at alpha = 0 is the large model's own: {lossless}")


if __name__ == "__main__":
    typer.run(main)
