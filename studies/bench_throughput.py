"""Throughput of the benchmark: scored texts in batches, and generation beside plain generate.

python -m studies.bench_throughput --rounds 3

The time is that of the processor (``time.process_time``), so that other programs disturb it little. Every round runs
what is compared in turn on the same texts; a table entry is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
import typer

from logitkit import models
from logitkit.bench.execution.sampling import continue_prompts, pinned_settings
from logitkit.bench.execution.scored_batches import Subject, score_requests
from logitkit.bench.tasks import Sentences
from logitkit.bench.tasks.sentences import SENTENCES
from logitkit.registry.bind import bind
from logitkit.registry.chain import Chain
from studies import command

WORDS = 6  # of each prompt of the generation
STOPS = ("\nQuestion:", "\n\n\n")  # those of gsm8k


def scoring(model: Any, tokenizer: Any) -> dict[str, Callable[[], Any]]:
    """Return the scoring of the built-in sentences one by one and in batches, after plain forwards one by one."""
    task = Sentences(rows=[])
    requests = [task.request(sample, tokenizer) for sample in task.samples]
    subject = Subject(Chain(), model, tokenizer, {}, {})

    @torch.no_grad()
    def forwards() -> None:
        for request in requests:
            model(input_ids=torch.tensor([tokenizer(f"{request.prompt}{request.options[0]}")["input_ids"][:-1]]))

    runs: dict[str, Callable[[], Any]] = {"plain forwards one by one": forwards}
    for batch in (1, 8, 32):
        runs[f"scored, batch {batch}"] = partial(score_requests, requests, subject, batch=batch)
    return runs


def generation(model: Any, tokenizer: Any, *, batch: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """Return plain generate and the benchmark's own continuations, greedy and sampled, of the same prompts."""
    prompts = [" ".join(SENTENCES[number % len(SENTENCES)].split()[:WORDS]) for number in range(batch)]
    new = {"max_new_tokens": tokens, "min_new_tokens": tokens}

    def call() -> Any:
        return bind(Chain(), model, tokenizer, prompts, trace=False, tokenizers={}, resources={}, warn=False)

    def benchmark(seeds: list[int] | None) -> None:
        continue_prompts(call(), max_new_tokens=tokens, seeds=seeds, stops=[STOPS] * batch)

    return {
        "plain generate, greedy": lambda: model.generate(**call().inputs, do_sample=False, **new),
        "benchmark, greedy": lambda: benchmark(None),
        "plain generate, sampled": lambda: model.generate(**call().inputs, do_sample=True, top_k=0, **new),
        "benchmark, sampled": lambda: benchmark(list(range(batch))),
    }


def seconds(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the processor time of each run in each round, after one run that warms up."""
    next(iter(runs.values()))()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            times[name].append(time.process_time() - begun)
    return times


def speed(times: dict[str, list[float]], name: str, beside: str) -> float:
    """Return the speed of a run divided by that of another, the median over rounds."""
    return statistics.median(b / a for a, b in zip(times[name], times[beside], strict=True))


def main(
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Texts that are generated together.")] = 32,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of each text.")] = 16,
) -> None:
    """Print both tables."""
    loaded, tokenizer = models.load(model)
    with pinned_settings(loaded):
        times = seconds(scoring(loaded, tokenizer), rounds)
        print(
            f"| {len(SENTENCES)} sentences | speed / batch 1 | seconds of processor time |\n|---|---|---|", flush=True
        )
        for name, spent in times.items():
            print(
                f"| {name} | {speed(times, name, 'scored, batch 1'):.2f} | {statistics.median(spent):.2f} |", flush=True
            )
        times = seconds(generation(loaded, tokenizer, batch=batch, tokens=tokens), rounds)
        print(f"\n| batch {batch}, {tokens} tokens | speed / plain generate |\n|---|---|")
        for kind in ("greedy", "sampled"):
            ratio = speed(times, f"benchmark, {kind}", f"plain generate, {kind}")
            print(f"| benchmark, {kind} | {ratio:.3f} |")


if __name__ == "__main__":
    command.run(main)
