"""Cost of gated steps and of MTI beside the least that their forwards allow, in one run and in CPU time.

    python -m studies.gate_speed --out studies/results/gate_speed.md

Every round runs plain decoding, every gate and every form of MTI once, and a chunk of each length; a ratio is that of
one round, and medians over rounds are reported. The cost of a chunk of k tokens behind a cache, c(k), is measured in
the same rounds. Step costs count from the second step on, so that prompts are left out; CPU time of one thread is less
disturbed by other programs than the clock.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import transformers
import typer
from transformers import DynamicCache

from logitkit import models
from logitkit.processors.engine.thin_matmul import in_faster_order
from logitkit.processors.transformers_api import with_cache
from logitkit.registry import Chain
from studies import command
from studies.stamps import Stamps
from studies.tables import markdown_table

TEXT = "The old lighthouse keeper climbed the stairs one last time, because the storm had not let up since noon. "
GATE = "cfg(1.5, negative='A dull text:', gate={{'measure': 'entropy', 'above': {threshold}}})"
MTI = "mti(threshold={threshold})"
FORMS = ("lazy", "fused", "auto")  # values of `streams`; fused: the text rides behind every row
CHUNKS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24)
OVERHEAD = 0.1  # plain steps a step that a gate may cost beside its forwards


class Measured(NamedTuple):
    """One run.

    Attributes:
        seconds: CPU time a step, from the second step on.
        share: share of the steps at which a second stream was asked.
    """

    seconds: float
    share: float


def run_of(model: Any, tokenizer: Any, chain: str, streams: Any, tokens: int) -> Callable[[], Measured]:
    """Return a function that generates once with a chain; an empty chain is plain decoding."""

    def run() -> Measured:
        call, stamps = Chain(chain).bind(model, tokenizer, TEXT), Stamps()
        lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        call.generate(streams=streams, logits_processor=[stamps], do_sample=False, **lengths)
        (fired,) = call.trace.fired.values() or (0.0,)
        return Measured(stamps.step, fired)

    return run


@torch.no_grad()
def chunk_of(model: Any, tokenizer: Any, length: int, tokens: int) -> Callable[[], Measured]:
    """Return a function that times one chunk of so many tokens behind the middle of a run, as a reader reads it."""
    rows = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.cat([rows, rows[:, : tokens // 2]], dim=1), **with_cache(cache), logits_to_keep=1)

    @torch.no_grad()
    def run() -> Measured:
        chunk = torch.zeros((1, length), dtype=torch.long)
        begun = time.process_time()
        in_faster_order(model, length)(chunk, **with_cache(cache), logits_to_keep=1)
        seconds = time.process_time() - begun
        cache.crop(-length)
        return Measured(seconds, 0.0)

    return run


def measure(runs: dict[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """Run everything once untimed, then in rounds; return the runs by name."""
    for run in runs.values():
        run()
    measured: dict[str, list[Measured]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            measured[name].append(run())
    return measured


def ratio(measured: dict[str, list[Measured]], name: str, to: str) -> float:
    """Return the median over rounds of the seconds of one run in those of another."""
    pairs = zip(measured[name], measured[to], strict=True)
    return statistics.median(one.seconds / other.seconds for one, other in pairs)


def chunk_costs(measured: dict[str, list[Measured]]) -> Callable[[float], float]:
    """Return c(k), the cost of a chunk of k tokens in forwards of one token, between measured lengths by a line."""
    costs = [ratio(measured, f"c({length})", "c(1)") for length in CHUNKS]
    return lambda length: float(np.interp(length, CHUNKS, costs))


def tables(measured: dict[str, list[Measured]], thresholds: list[float], text: int) -> str:
    """Return the costs of chunks, of gates and of MTI beside their bounds, as Markdown tables.

    Args:
        measured: the runs by name.
        thresholds: of the entropy, in nats.
        text: tokens of the negative text of MTI.
    """
    cost = chunk_costs(measured)
    chunks = [["c(k)", *(f"{cost(length):.2f}" for length in CHUNKS)]]
    gates, forms = [], []
    for threshold in thresholds:
        name = GATE.format(threshold=threshold)
        share, own = measured[name][0].share, ratio(measured, name, "plain")
        bound = 1 + (share * cost(1 / share) if share else 0) + OVERHEAD
        gates.append([f"{threshold:g}", f"{share:.2f}", f"{own:.2f}", f"{bound:.2f}", f"{own / bound:.2f}"])
        name = MTI.format(threshold=threshold)
        share = measured[f"{name} lazy"][0].share
        separate, riding = 1 + share * cost(text), cost(1 + text)
        took = [ratio(measured, f"{name} {form}", "plain") for form in FORMS]
        bound = min(separate, riding)
        cells = [*took, separate, riding, took[-1] / bound]
        forms.append([f"{threshold:g}", f"{share:.2f}", *(f"{cell:.2f}" for cell in cells)])
    titles = [
        "`cfg` behind a gate: entropy above",
        "firing share r",
        "cost, plain steps",
        "1 + r c(1/r) + 0.1",
        "cost / bound",
    ]
    mti = ["`mti`: threshold", "firing share r", "lazy", "riding", "auto"]
    mti += [f"1 + r c({text})", f"c({1 + text})", "auto / the smaller"]
    return "\n\n".join(
        [
            markdown_table(["tokens k", *map(str, CHUNKS)], chunks),
            markdown_table(titles, gates),
            markdown_table(mti, forms),
        ]
    )


def main(
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "smollm2-135m",
    threshold: Annotated[list[float] | None, typer.Option(help="Entropy in nats; repeatable.")] = None,
    tokens: Annotated[int, typer.Option(min=4, help="New tokens of a run.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds.")] = 5,
    out: Annotated[Path | None, typer.Option(help="File for the tables; left out: the terminal.")] = None,
) -> None:
    """Measure, and print or write the tables."""
    loaded, tokenizer = models.load(model)
    thresholds = threshold or [4.0, 3.0, 2.0, 1.0, 0.0]
    runs = {"plain": run_of(loaded, tokenizer, "", "lazy", tokens)}
    for one in thresholds:
        name = GATE.format(threshold=one)
        runs[name] = run_of(loaded, tokenizer, name, "lazy", tokens)
        name = MTI.format(threshold=one)
        runs |= {f"{name} {form}": run_of(loaded, tokenizer, name, form, tokens) for form in FORMS}
    runs |= {f"c({length})": chunk_of(loaded, tokenizer, length, tokens) for length in CHUNKS}
    text = len(tokenizer("OUTPUT ERROR", add_special_tokens=False)["input_ids"])
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    how = f"{torch.get_num_threads()} thread of a CPU, {tokens} tokens, batch 1, CPU time, medians of {rounds} rounds"
    page = f"{model}, fp32, {how}; {versions}.\n\n{tables(measure(runs, rounds), thresholds, text)}\n"
    if out is None:
        typer.echo(page)
    else:
        out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
