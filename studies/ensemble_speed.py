"""What an ensemble step costs beside the plain decoding steps of its members, in one run.

Every round decodes once with each member alone and once with each ensemble; the ratio is an ensemble's time over the
sum of its members', taken round by round, and its median is printed beside the floor: the same ratio counted in
time spent inside forward passes.

    python -m studies.ensemble_speed --helper gemma-3-270m --batch 1 --batch 4
"""

from __future__ import annotations

import statistics
import time
from typing import Annotated, Any

import torch
import typer

from logitkit import models
from logitkit.bench.speed.clock import ForwardClock
from logitkit.registry.chain import Chain

PROMPTS = [
    "The old lighthouse keeper climbed the stairs one last time, because",
    "In the middle of the nineteenth century, most people in Europe still",
    "To make a good cup of coffee at home, you should first",
    "The committee met on Tuesday to discuss whether the bridge",
]
CHAINS = [
    "ensemble(models={names}, align='gac')",
    "ensemble(models={names}, align='unite')",
    "core(models={names}, align='mined')",
    "core(models={names}, align='embedding')",
]


def timed(run: Any, clocked: list[Any], *, cpu: bool) -> tuple[float, float]:
    """Seconds in all, and inside the models' forward passes."""
    now = time.process_time if cpu else time.perf_counter
    clocks = [ForwardClock(model, now) for model in clocked]
    begun = now()
    run()
    seconds = now() - begun
    for clock in clocks:
        clock.remove()
    return seconds, sum(clock.seconds for clock in clocks)


def main(
    model: Annotated[str, typer.Option(help="The generating model.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="Helpers.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="New tokens a run.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 3,
    cpu: Annotated[bool, typer.Option("--cpu", help="Count CPU time, which a busy machine disturbs less.")] = False,
) -> None:
    """Print the tables."""
    names = helper or ["gemma-3-270m"]
    loaded = {name: models.load(name) for name in [model, *names]}
    generating, tokenizer = loaded[model]
    helpers = {name: loaded[name][0] for name in names}
    everyone = [pair[0] for pair in loaded.values()]
    settings: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    resources: dict[str, Any] = {f"helper{place}": helpers[name] for place, name in enumerate(names)}
    tokenizers = {f"helper{place}": loaded[name][1] for place, name in enumerate(names)}
    members = f"{model} with {', '.join(names)}, fp32, {'CPU' if cpu else 'wall'} time"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {members}\n")
    for size in batch or [1, 4]:
        prompts = [PROMPTS[place % len(PROMPTS)] for place in range(size)]

        def chained(text: str, prompts: list[str] = prompts) -> Any:
            call = Chain(text).bind(generating, tokenizer, prompts, tokenizers=tokenizers, **resources)
            return lambda: call.generate(**settings)

        def alone(name: str, prompts: list[str] = prompts) -> Any:
            call = Chain().bind(*loaded[name], prompts)
            return lambda: call.generate(**settings)

        seconds: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds + 1):  # the first round warms up and fills the cache of alignments
            runs = {name: alone(name) for name in loaded}
            runs |= {text: chained(text.format(names=list(resources))) for text in CHAINS}
            for name, run in runs.items():
                took = timed(run, everyone, cpu=cpu)
                if number:
                    seconds.setdefault(name, []).append(took)
        print(table(seconds, list(loaded), size * tokens, size), "\n", flush=True)


def table(seconds: dict[str, list[tuple[float, float]]], alone: list[str], tokens: int, batch: int) -> str:
    """The result as Markdown: ratio first."""
    sums = [sum(seconds[name][place][0] for name in alone) for place in range(len(seconds[alone[0]]))]
    lines = [f"| batch {batch} | of the members' sum | floor: in forwards alone | tokens/s |", "|---|---|---|---|"]
    for name, rounds in seconds.items():
        pairs = list(zip(rounds, sums, strict=True))
        ratio, floor = (statistics.median(took[part] / whole for took, whole in pairs) for part in (0, 1))
        rate = tokens / statistics.median(took for took, _ in rounds)
        lines.append(f"| {name} | {ratio:.3f} | {floor:.3f} | {rate:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
