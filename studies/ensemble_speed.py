"""Cost of an ensemble step relative to the plain decoding steps of its members, in one run.

Every round decodes once with each member alone and once with each ensemble. The ratio is the time of an ensemble
divided by the sum of its members' times, taken within a round; its median is reported. The floor is the same ratio
for the time inside forward passes.

    python -m studies.ensemble_speed --helper gemma-3-270m --batch 1 --batch 4
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import torch
import typer

from logitkit.bench.speed import ForwardClock
from logitkit.registry import Chain
from studies import command
from studies.ensemble_members import EnsembleMembers
from studies.tables import markdown_table

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


class RunTime(NamedTuple):
    """Seconds of one run: in total, and inside forward passes."""

    total: float
    forwards: float


def timed(run: Callable[[], Any], models: Sequence[Any], *, cpu: bool) -> RunTime:
    """Time a run with a clock on each of the models."""
    now = time.process_time if cpu else time.perf_counter
    clocks = [ForwardClock(model, now) for model in models]
    begun = now()
    run()
    seconds = now() - begun
    for clock in clocks:
        clock.remove()
    return RunTime(seconds, sum(clock.seconds for clock in clocks))


def bound_runs(members: EnsembleMembers, prompts: list[str], settings: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return functions that decode once with each member alone and with each ensemble, bound to fresh calls."""

    def run(chain: str, name: str) -> Callable[[], Any]:
        model, tokenizer = members.loaded[name]
        resources = members.resources if chain else {}
        call = Chain(chain).bind(model, tokenizer, prompts, tokenizers=members.tokenizers, **resources)
        return lambda: call.generate(**settings)

    runs = {name: run("", name) for name in members.loaded}
    return runs | {text: run(text.format(names=list(members.resources)), members.main) for text in CHAINS}


def measure(
    members: EnsembleMembers, prompts: list[str], *, tokens: int, rounds: int, cpu: bool
) -> dict[str, list[RunTime]]:
    """Return the times of every member and ensemble, by round."""
    settings: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    models = [model for model, _ in members.loaded.values()]
    times: dict[str, list[RunTime]] = {}
    for number in range(rounds + 1):  # the first round warms up and fills the cache of alignments
        for name, run in bound_runs(members, prompts, settings).items():
            duration = timed(run, models, cpu=cpu)
            if number:
                times.setdefault(name, []).append(duration)
    return times


def table(times: dict[str, list[RunTime]], members: Sequence[str], *, tokens: int, batch: int) -> str:
    """Return the times as a Markdown table.

    Args:
        times: times of each member and ensemble, by round.
        members: names of the members.
        tokens: number of new tokens of a run, over all rows.
        batch: number of rows.
    """
    sums = [sum(durations) for durations in zip(*([t.total for t in times[name]] for name in members), strict=True)]
    rows = []
    for name, durations in times.items():
        ratio = statistics.median(duration.total / total for duration, total in zip(durations, sums, strict=True))
        floor = statistics.median(duration.forwards / total for duration, total in zip(durations, sums, strict=True))
        rate = tokens / statistics.median(duration.total for duration in durations)
        rows.append([name, f"{ratio:.3f}", f"{floor:.3f}", f"{rate:.1f}"])
    return markdown_table([f"batch {batch}", "time / members' sum", "floor: forwards alone", "tokens/s"], rows)


def main(
    model: Annotated[str, typer.Option(help="Name of the generating model.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="Name of a helper; repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="A batch size; repeatable.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="New tokens per prompt.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds.")] = 3,
    cpu: Annotated[bool, typer.Option("--cpu", help="Measure CPU time, which other processes disturb less.")] = False,
) -> None:
    """Print a table of times for each batch size."""
    members = EnsembleMembers.load(model, helper or ["gemma-3-270m"])
    clock = "CPU" if cpu else "wall"
    names = f"{model} with {', '.join(members.helpers)}, fp32, {clock} time"
    typer.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {names}\n")
    for size in batch or [1, 4]:
        prompts = [PROMPTS[place % len(PROMPTS)] for place in range(size)]
        times = measure(members, prompts, tokens=tokens, rounds=rounds, cpu=cpu)
        typer.echo(table(times, list(members.loaded), tokens=size * tokens, batch=size) + "\n")


if __name__ == "__main__":
    command.run(main)
