"""Throughput of particles beside a plain batch of their number, and of fused beside lazy second streams.

    python -m studies.search_speed --out studies/results/search_speed.md

Every round runs each method once; a ratio is that of one round, and medians over rounds are reported. CPU time counts
from the second step on: a search reads a prompt once, and a plain batch once for each row. The floor is the throughput
that the forwards of the method alone would allow.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import transformers
import typer

from logitkit import models
from logitkit.bench.speed import ForwardClock
from logitkit.registry import Chain
from studies import command
from studies.stamps import Stamps
from studies.tables import markdown_table

TEXT = "The old lighthouse keeper climbed the stairs one last time, because the storm had not let up."
# Chains by what they show; {n} is the number of rows. Without a search, rows are those of num_return_sequences.
SEARCHES = {
    "samples for a selector": "best_of(n={n})",
    "smc, no resampling": "smc({n}, alpha=2.0, ess=0.0)",
    "smc": "smc({n}, alpha=2.0)",
    "smc, resampling at each step": "smc({n}, alpha=2.0, ess=1.0)",
}
STREAMS = "cfg(1.5, negative='A dull text:') | smc({n}, alpha=2.0)"


class Step(NamedTuple):
    """The mean step of one run.

    Attributes:
        seconds: CPU time of the step.
        forwards: CPU time of the forwards in it.
    """

    seconds: float
    forwards: float


def run_of(model: Any, tokenizer: Any, chain: str, rows: int, tokens: int, streams: Any = "auto") -> Callable[[], Step]:
    """Return a function that generates once and returns the time of a step.

    Args:
        model, tokenizer: what generates.
        chain: the chain; without a search, ``rows`` sequences are sampled.
        rows: of the forwards.
        tokens: new tokens of each row.
        streams: as in `Call.generate`.
    """

    def run() -> Step:
        clock = ForwardClock(model, time.process_time)
        bound, stamps = Chain(chain), Stamps(clock, skipped=1)  # a search begins with one row for each prompt
        call = bound.bind(model, tokenizer, TEXT)
        number = {} if bound.searches else {"do_sample": True, "top_k": 0, "num_return_sequences": rows}
        lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        torch.manual_seed(0)
        call.generate(streams=streams, logits_processor=[stamps], **number, **lengths)
        clock.remove()
        return Step(stamps.step, stamps.forwards)

    return run


def measure(runs: dict[str, Callable[[], Step]], rounds: int) -> dict[str, list[Step]]:
    """Run everything once untimed, then in rounds; return the steps by name."""
    for run in runs.values():
        run()
    measured: dict[str, list[Step]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            measured[name].append(run())
    return measured


def ratio(measured: dict[str, list[Step]], name: str, to: str) -> tuple[float, float]:
    """Return the median over rounds of the throughput of one run in that of another, and its floor."""
    pairs = list(zip(measured[name], measured[to], strict=True))
    floor = statistics.median(other.seconds / one.forwards for one, other in pairs)
    return statistics.median(other.seconds / one.seconds for one, other in pairs), floor


def row_of(measured: dict[str, list[Step]], rows: int, name: str, to: str) -> list[str]:
    """Return the row of a method in a table of throughputs, beside another method."""
    speed, floor = ratio(measured, name, to)
    step = 1000 * statistics.median(one.seconds for one in measured[name])
    return [str(rows), name, f"{step:.0f}", f"{speed:.2f}", f"{floor:.2f}"]


def tables(model: Any, tokenizer: Any, sizes: list[int], tokens: int, rounds: int) -> list[str]:
    """Return the table of searches and the table of streams, as Markdown."""
    searches, streams = [], []
    for rows in sizes:
        runs = {"plain": run_of(model, tokenizer, "", rows, tokens)}
        runs |= {name: run_of(model, tokenizer, chain.format(n=rows), rows, tokens) for name, chain in SEARCHES.items()}
        found = measure(runs, rounds)
        searches += [row_of(found, rows, name, "plain") for name in runs]
        chain = STREAMS.format(n=rows)
        ways = {way: run_of(model, tokenizer, chain, rows, tokens, way) for way in ("lazy", "fused", "auto")}
        found = measure(ways, rounds)
        streams += [row_of(found, rows, way, "lazy") for way in ways]
    heads = ["rows", "CPU ms a step"]
    return [
        markdown_table([heads[0], "method", heads[1], "throughput / plain batch", "floor"], searches),
        markdown_table([heads[0], "second stream", heads[1], "throughput / lazy", "floor"], streams),
    ]


def main(
    model: Annotated[str, typer.Option(help="Known model, folder or hub id.")] = "smollm2-135m",
    rows: Annotated[list[int] | None, typer.Option(min=1, help="Number of particles; repeatable.")] = None,
    tokens: Annotated[int, typer.Option(min=3, help="New tokens of each row.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Paired rounds.")] = 3,
    out: Annotated[Path | None, typer.Option(help="File to which the tables are written as well.")] = None,
) -> None:
    """Measure the throughput of searches beside a plain batch, and of fused beside lazy second streams."""
    torch.set_num_threads(1)
    loaded, tokenizer = models.load(model)
    of_searches, of_streams = tables(loaded, tokenizer, rows or [8, 64], tokens, rounds)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    chain = STREAMS.replace("{n}", "n")
    text = f"""# Searches, speed

`python -m studies.search_speed --tokens {tokens} --rounds {rounds}`: {model}, fp32, one thread of a CPU, CPU time from the second step on, medians of paired rounds; {versions}.

All particles are rows of one forward. A plain batch samples as many rows with `model.generate`. The floor is the throughput that the forwards of a method alone would allow:

{of_searches}

`{chain}`: the second stream is read in one forward of all particles (`lazy`), or as further rows of the forward of the particles (`fused`); `auto` chooses:

{of_streams}
"""  # noqa: E501
    typer.echo(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
